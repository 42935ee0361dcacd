"""The command line of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.evaluate_request import parse

LEAST = ["--images", "a", "b", "--codec", "jpeg", "--codec", "webp", "--output", "out"]


def test_what_is_asked_for() -> None:
    request = parse("", [*LEAST, "--measure", "frechet", "--rates", "0.1,0.25", "--limit", "3"])
    assert (request.images, request.codecs, request.measures) == (("a", "b"), ("jpeg", "webp"), ("frechet",))
    assert (request.rates, request.bd_range, request.crop_rate) == ((0.1, 0.25), (0.05, 0.5), 0.1)
    assert (request.output, request.limit, request.workers, request.storage_options) == (Path("out"), 3, None, {})


def test_lists_follow_one_option_or_repeat_it() -> None:
    command = ["--images", "a", "b", "--images", "c", "--codec", "jpeg", "webp", "--codec", "avif", "--output", "out"]
    request = parse("", [*command, "--measure", "lpips", "dists"])
    assert (request.images, request.codecs) == (("a", "b", "c"), ("jpeg", "webp", "avif"))
    assert request.measures == ("lpips", "dists")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--rates", "0.2,0.1"],
        ["--rates", "0,1"],
        ["--rates", "few"],
        ["--bd-range", "0.1"],
        ["--crop-rate", "nan"],
        ["--limit", "0"],
        ["--workers", "0"],
    ],
)
def test_wrong_numbers(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("", [*LEAST, *wrong])
    assert ended.value.code == 2
    assert f"{wrong[1]!r} is not" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["tpu", "cuda:1"])
def test_what_is_no_device(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would go unnoticed where no codec or measure has networks."""
    with pytest.raises(SystemExit) as ended:
        parse("", [*LEAST, "--device", device])
    assert ended.value.code == 2
    assert repr(device) in capsys.readouterr().err


def test_an_earlier_evaluation() -> None:
    request = parse("", ["--from", "out", "--output", "again", "--rates", "0.1"])
    assert (request.earlier, request.images, request.codecs, request.rates) == (Path("out"), (), (), (0.1,))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--images", "a"], "--images and --codec are required, or --from"),
        (["--codec", "jpeg"], "--images and --codec are required, or --from"),
        (["--from", "a", "--codec", "jpeg", "--limit", "2"], "not with --codec, --limit"),
        (["--from", "a", "--images", "b"], "not with --images"),
        (["--from", "a", "--crop-rate", "0.2", "--device", "cuda"], "not with --crop-rate, --device"),
        (["--from", "a", "--detect-in", "*b*", "--storage-options", '{"a": 1}'], "not with --detect-in, --storage-"),
    ],
)
def test_either_to_measure_or_to_go_on(wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("", ["--output", "out", *wrong])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
