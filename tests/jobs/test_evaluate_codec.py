"""The evaluation job from image files to its report."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image

from difficmh.evaluation.contestants import Variant
from jobs import evaluate_codec
from pipeline.evaluate_request import parse
from tests.corpora import tar_bytes
from tests.difficmh.test_metrics import photo
from tests.jobs.test_analyze_dataset import OWN_MODEL


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    Image.fromarray(photo(40, 56)).save(folder / "a.PNG")
    Image.fromarray(photo(30, 44)).save(folder / "b.jpg")
    (folder / "notes.txt").write_text("no image")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "b.jpg", "key.jpg")
        tar.add(folder / "notes.txt", "key.txt")
    return tmp_path


def run(images: Path, *extra: str) -> dict[str, Any]:
    sources = ["--images", str(images / "photos"), str(images / "*.tar")]
    assert evaluate_codec.main([*sources, "--output", str(images / "out"), *extra]) == 0
    report: dict[str, Any] = json.loads((images / "out" / "evaluation.json").read_text())
    return report


def test_folders_and_tars_through_baselines(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(images, "--codec", "jpeg@20,60,90", "--codec", "webp@20,60,90", "--bd-range", "0.1,20")
    assert [row["images"] for row in report["rows"]] == [3] * 6
    assert (images / "out" / "curves.png").exists()
    assert (images / "out" / "index.html").exists()
    printed = capsys.readouterr()
    assert "BD-rate against jpeg: webp" in printed.out
    assert "18 of 18 decoded pictures measured" in printed.err
    rows = pyarrow.parquet.read_table(images / "out" / "measurements.parquet").to_pylist()
    assert [row["image"] for row in rows].count("shard.tar/key") == 6
    assert {"psnr", "ms_ssim_db", "bits_per_pixel", "compress_seconds"} <= set(rows[0])


def test_other_rates_without_measuring_again(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(
        images, "--codec", "jpeg@20,60,90", "--codec", "webp@20,60,90", "--bd-range", "0.1,20", "--rates", "1,3"
    )
    capsys.readouterr()
    again = ["--from", str(images / "out"), "--output", str(images / "again"), "--rates", "1.5", "--bd-range", "1,9"]
    assert evaluate_codec.main(again) == 0
    report = json.loads((images / "again" / "evaluation.json").read_text())
    assert (report["request"]["rates"], report["plan"], report["rows"]) == ([1.5], first["plan"], first["rows"])
    assert "decoded pictures measured" not in capsys.readouterr().err
    assert {path.name for path in (images / "again").iterdir()} == {path.name for path in (images / "out").iterdir()}
    assert (
        evaluate_codec.main([*again[:2], "--output", again[1], "--rates", "1,3", "--bd-range", "0.1,20", "--overwrite"])
        == 0
    )
    assert json.loads((images / "out" / "evaluation.json").read_text()) == first


def test_an_earlier_evaluation_is_not_overwritten_unasked(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(images, "--codec", "jpeg@20")
    wanted = ["--images", str(images / "photos"), "--output", str(images / "out"), "--codec", "jpeg@60"]
    for words in (wanted, [*wanted[2:4], "--from", str(images / "out")]):
        capsys.readouterr()
        assert evaluate_codec.main(words) == 2
        printed = capsys.readouterr().err
        assert printed == f"error: {images / 'out'} holds an evaluation already: choose another place or --overwrite\n"
        assert json.loads((images / "out" / "evaluation.json").read_text()) == first
    assert evaluate_codec.main([*wanted, "--overwrite"]) == 0
    assert json.loads((images / "out" / "evaluation.json").read_text()) != first


def test_a_module_in_the_current_folder(images: Path) -> None:
    (images / "own_sizes.py").write_text(OWN_MODEL)
    words = [
        "--images",
        "photos",
        "--codec",
        "jpeg@60",
        "--measure",
        "analyzer:python:own_sizes:make",
        "--output",
        "out",
    ]
    command = [sys.executable, evaluate_codec.__file__, *words]
    ended = subprocess.run(command, cwd=images, check=False, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, "sizes" in ended.stdout) == (0, True), ended.stderr


def test_nothing_to_go_on_from(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_codec.main(["--from", str(images), "--output", str(images / "again")]) == 2
    assert "has no evaluation to go on from" in capsys.readouterr().err
    assert not (images / "again").exists()


def test_limit(images: Path) -> None:
    assert run(images, "--codec", "jpeg@20", "--limit", "1")["rows"][0]["images"] == 1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_ray_measures_the_same(images: Path) -> None:
    codecs = ("--codec", "jpeg@20,60", "--codec", "webp@20")
    here, there = run(images, *codecs), run(images, *codecs, "--workers", "1", "--overwrite")
    assert there["metrics"] == here["metrics"]
    assert there["images"] == here["images"]


def test_ray_that_does_not_come_up_is_one_line(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    arguments = ["--images", str(images / "photos"), "--output", str(images / "out"), "--workers", "1"]
    # With a GPU that this machine has not: only workers need it.
    assert evaluate_codec.main([*arguments, "--codec", "difficmh:lite@1:preview", "--device", "cuda"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: Ray can be neither reached nor started: Exception: The current node timed out during startup."
    ]


@pytest.mark.parametrize(
    ("images_url", "arguments", "message"),
    [
        ("none", ["--codec", "jpeg"], "none"),
        ("photos", ["--codec", "jpeg2000"], "jpeg2000"),
        ("photos", ["--codec", "difficmh:nothing"], "nothing"),
        ("photos", ["--codec", "jpeg", "--measure", "detection:none.onnx"], "no ONNX model at none.onnx"),
        ("photos", ["--codec", "jpeg", "--measure", "beauty"], "no measure 'beauty'"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    images: Path, capsys: pytest.CaptureFixture[str], images_url: str, arguments: list[str], message: str
) -> None:
    assert evaluate_codec.main(["--images", str(images / images_url), "--output", str(images / "out"), *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (images / "out").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_a_package_for_the_report_is_missed_before_measuring(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    arguments = ["--images", str(images / "photos"), "--codec", "jpeg@9", "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    printed = capsys.readouterr().err
    assert f"a report needs a package: pip install {package.split('.')[0]}" in printed
    assert "decoded pictures measured" not in printed


def test_an_output_that_cannot_be_written_is_found_before_measuring(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = images / "photos" / "deep" / "a.PNG" / "out"
    assert evaluate_codec.main(["--images", str(images / "photos"), "--codec", "jpeg@9", "--output", str(output)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: cannot write into {output}: ")
    assert len(printed.splitlines()) == 1


def test_a_report_that_fails_costs_no_measurement(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError("a defect of the page")

    monkeypatch.setattr("difficmh.evaluation.output.render_page", fails)
    arguments = ["--images", str(images / "photos"), "--codec", "jpeg@9", "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    assert pyarrow.parquet.read_table(images / "out" / "measurements.parquet").num_rows == 2


def test_json_of_another_form_matters_to_detection_only(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "photos" / "deep" / "b.json").write_text(json.dumps({"objects": [{"name": "car"}]}))
    assert len(run(images, "--codec", "jpeg@20")["rows"]) == 1
    arguments = ["--images", str(images / "photos"), "--codec", "jpeg@20", "--output", str(images / "out")]
    request = parse(None, [*arguments, "--measure", "detection:model.onnx"])
    with pytest.raises(ValueError, match=r"deep/b\.jpg: an object is no label with a box"):
        evaluate_codec.prepared(request)


def test_a_picture_that_cannot_be_read_is_left_out_and_named(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = images / "photos" / "deep"
    whole = (deep / "b.jpg").read_bytes()
    (deep / "a2.jpg").write_bytes(whole[: len(whole) // 2])
    report = run(images, "--codec", "jpeg@9", "--limit", "2")
    assert (report["images"], list(report["unreadable"])) == (["deep/a.PNG", "deep/b.jpg"], ["deep/a2.jpg"])
    printed = capsys.readouterr()
    assert "2 of 2 decoded pictures measured" in printed.err
    line = printed.out.splitlines()[-1]
    assert line.startswith("1 picture left out that cannot be read: deep/a2.jpg (not a readable image: ")
    assert line.partition(" (")[0] in (images / "out" / "index.html").read_text()
    assert evaluate_codec.main(["--from", str(images / "out"), "--output", str(images / "again")]) == 0
    assert json.loads((images / "again" / "evaluation.json").read_text())["unreadable"] == report["unreadable"]


def test_no_picture_that_can_be_read_is_an_error(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "c.jpg").write_bytes(b"none")
    arguments = ["--images", str(images / "c.jpg"), "--output", str(images / "out"), "--codec", "jpeg@9"]
    assert evaluate_codec.main(arguments) == 2
    expected = "error: no picture to measure: 1 picture left out that cannot be read: c.jpg (not an image"
    assert capsys.readouterr().err.startswith(expected)
    assert not (images / "out").exists()


def test_what_ray_deletes_is_no_place_for_a_report(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = images / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert evaluate_codec.main(["--images", str(images), "--codec", "jpeg@9", "--output", "out"]) == 2
    assert "is in Ray's own copy" in capsys.readouterr().err


def test_a_damaged_shard_is_no_evaluation(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = images / "shard.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    arguments = ["--images", str(shard), "--codec", "jpeg", "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    assert "shard.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0, 1600, ", at b: the tar ends inside b.jpg: 32 of 668 bytes"),  # of those behind its first 32
        (0, 1024, ": the tar ends without its end mark: it may have been cut"),
        (100, 4000, ": not a tar header at byte 0: bad checksum"),
    ],
)
def test_a_damaged_shard_is_named_in_a_line(
    images: Path, capsys: pytest.CaptureFixture[str], start: int, end: int, message: str
) -> None:
    shard = images / "shard.tar"
    shard.write_bytes(tar_bytes([("a.jpg", bytes(500)), ("b.jpg", bytes(700))])[start:end])
    arguments = ["--images", str(images / "photos"), str(shard), "--codec", "jpeg", "--output", str(images / "out")]
    assert evaluate_codec.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {shard}{message}; mend the shard or leave it out\n"
    assert not (images / "out").exists()


def test_the_help_names_all_that_a_codec_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate_codec.main(["--help"])
    shown = capsys.readouterr().out
    options = {field.name for field in fields(Variant)} - {"mode"}
    assert {name for name in options if f",{name}=" not in shown} == set()
