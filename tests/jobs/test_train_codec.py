"""The training job as it is run: all stages in order on tiny networks, export, and several workers under Ray Train."""

from __future__ import annotations

import io
import json
import runpy
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from ray.train import ControllerError, WorkerGroupError

import difficmh
from difficmh.capsule import BUILT_IN, FORMAT, MANIFEST, MODELS_VARIABLE
from difficmh.training.command import parse
from difficmh.training.image_tags import learned_vocabulary
from difficmh.training.job import TrainingJob
from difficmh.training.run import previous_weights
from tests.difficmh.tiny_capsule import CONFIG, TAGS, make_tiny_capsule, photograph


def run(script: str, *arguments: object) -> int:
    """The job's own `main`, in this process: starting Python with all its libraries takes longer than tiny training."""
    return runpy.run_path(f"jobs/{script}")["main"](list(map(str, arguments)))


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """What all stages have in common: a shard, tags, a configuration of tiny networks, an output folder."""
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for k in range(4):
            file = io.BytesIO()
            Image.fromarray(photograph(200, 240, k)).save(file, "png")
            member = tarfile.TarInfo(f"{k:04}.png")
            member.size = len(file.getvalue())
            tar.addfile(member, io.BytesIO(file.getvalue()))
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT, "name": "tiny", "codec": CONFIG.to_dict()}))
    (tmp_path / "tags.json").write_text(json.dumps({"names": TAGS, "tags": {"0001": ["car", "tree"]}}))
    return [
        *("--data", tmp_path / "*.tar", "--output", tmp_path / "run", "--batch-size", 2, "--minutes", 0.02),
        *("--tags", tmp_path / "tags.json", "--config", tmp_path / "config.json"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_stages_make_a_codec(tmp_path: Path, arguments: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    """As in docs/training.md: tags by the tagger of `lite`, which the capsule takes over, and its release."""
    for stage in ("rate_distortion", "diffusion", "one_step"):
        assert run("train_codec.py", *arguments, "--tags", "lite", "--stage", stage) == 0
    checkpoint = tmp_path / "run" / "one_step.pt"
    (tmp_path / "held-back").mkdir()
    Image.fromarray(photograph(64, 96)).save(tmp_path / "held-back" / "frame.png")
    release = (
        *("release_codec.py", "--evaluation", tmp_path / "evaluation", "--rates", "0.5,2"),
        *("--checkpoint", checkpoint, "--capsule", tmp_path / "capsule", "--name", "mine", "--companions", "lite"),
    )
    before = sorted(tmp_path.iterdir())
    assert run(*release, "--images", tmp_path / "mistyped") == 2
    assert sorted(tmp_path.iterdir()) == before  # where there was a capsule it would still be that one
    assert run(*release, "--images", tmp_path / "held-back") == 0
    codec = difficmh.load(tmp_path / "capsule")
    assert codec.fingerprint in capsys.readouterr().out
    card = (tmp_path / "capsule" / "MODEL_CARD.md").read_text()
    assert learned_vocabulary(checkpoint) == learned_vocabulary(tmp_path / "capsule")
    assert [f"| `{stage}` |" in card for stage in ("rate_distortion", "diffusion", "one_step")] == [True] * 3
    assert "| at bits per pixel | 0.5 | 2 |" in card
    assert "| capsule preview | 6 |" in card
    (stream,) = codec.compress([photograph(64, 96)], quality=4, tags=[["car"]])
    assert codec.decompress([stream], mode="full")[0].shape == (3, 64, 96)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_later_stage_asks_for_the_earlier_one(
    arguments: list[object], capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    assert run("train_codec.py", *arguments, "--stage", "diffusion", "--workers", workers) == 2
    assert "train stage rate_distortion first" in one_error(capsys)


@pytest.mark.parametrize(
    ("option", "content", "line"),
    [
        ("--start", "no checkpoint", "is no checkpoint of training"),
        ("--tags", "[]", "holds no tags by image key"),
        ("--tags", '{"names": 5}', "holds no tags by image key"),
        ("--config", "{}", "describes no networks: KeyError('codec')"),
        ("--config", "{", "describes no networks"),
    ],
)
def test_files_that_are_something_else_are_named(
    tmp_path: Path, arguments: list[object], capsys: pytest.CaptureFixture[str], option: str, content: str, line: str
) -> None:
    (tmp_path / "odd").write_text(content)
    assert run("train_codec.py", *arguments, "--stage", "rate_distortion", option, tmp_path / "odd") == 2
    assert f"error: {tmp_path / 'odd'} {line}" in one_error(capsys)


def test_places_are_absolute_for_workers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").touch()
    command = ["--data", "*.tar", "--output", "run", "--start", "lite", "--stage", "diffusion", "--minutes", "1"]
    job = parse("", command).job
    assert (job.data, job.output) == ((tmp_path / "a.tar",), tmp_path / "run")
    assert job.start == BUILT_IN / "lite"


def test_models_go_by_name_and_other_things_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do elsewhere, fetched models too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    (tmp_path / "tags.json").touch()
    (tmp_path / "in-the-making").mkdir()
    fetched = tmp_path / "models" / "sd21-r4"
    fetched.mkdir(parents=True)
    (fetched / MANIFEST).touch()
    command = ["--data", "x", "--output", "y", "--stage", "diffusion", "--minutes", "1"]
    for name, place in (("tags.json",) * 2, ("in-the-making",) * 2, ("sd21-r4", "models/sd21-r4")):
        assert parse("", [*command, "--tags", name]).job.tags == tmp_path / place


@pytest.mark.parametrize(
    ("name", "words"), [("sd21-r8", "`difficmh models fetch sd21-r8`"), ("typo.pt", "no file typo.pt")]
)
@pytest.mark.parametrize("option", ["--tags", "--start"])
def test_a_name_of_nothing_is_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    name: str,
    words: str,
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(SystemExit):
        parse("", ["--data", "x", "--output", "y", "--stage", "diffusion", "--minutes", "1", option, name])
    error = capsys.readouterr().err
    assert option in error
    assert words in error


def test_what_a_stage_started_from_may_be_gone_when_it_goes_on(tmp_path: Path) -> None:
    command = ["--data", "x", "--output", str(tmp_path), "--minutes", "1", "--start", "gone.pt", "--stage"]
    (tmp_path / "one_step.pt").touch()
    assert previous_weights(parse("", [*command, "one_step"]).job) == tmp_path / "one_step.pt"
    with pytest.raises(SystemExit):
        parse("", [*command, "diffusion"])


def test_what_ray_deletes_is_no_place_for_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0" / "run"
    assert run("train_codec.py", "--data", "x", "--output", copy, "--minutes", "1", "--stage", "diffusion") == 2
    assert "is in Ray's own copy" in one_error(capsys)


def test_one_step_learns_more_slowly_unless_told() -> None:
    command = ["--data", "x", "--output", "y", "--minutes", "1", "--stage"]
    assert parse("", [*command, "one_step"]).job.learning_rate is None
    assert parse("", [*command, "one_step", "--rate", "2e-4"]).job.learning_rate == 2e-4
    rates = [TrainingJob((), Path(), stage, 1).peak_rate for stage in ("rate_distortion", "one_step")]
    assert rates == [4e-4, 1.5e-4]
    assert TrainingJob((), Path(), "one_step", 1, learning_rate=2e-4).peak_rate == 2e-4


def test_places_may_follow_one_option_or_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--data", "a", "b", "--data", "c", "--output", "y", "--minutes", "1", "--stage", "decoder"]
    job = parse("", [*command, "--set", "adversarial=0", "codec_features=0", "--set", "far=0"]).job
    assert [path.name for path in job.data] == ["a", "b", "c"]
    assert (job.settings.adversarial, job.settings.codec_features, job.settings.far) == (0, 0, 0)


@pytest.mark.parametrize(
    "number", ["--minutes=-1", "--minutes=0", "--minutes=nan", "--rate=0", "--batch-size=0", "--workers=0"]
)
def test_numbers_that_make_no_sense_are_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("", ["--data", "x", "--output", "y", "--stage", "decoder", "--minutes", "1", number])
    assert number.partition("=")[0] in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_there_is_not(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train_codec.py", *arguments, "--stage", "rate_distortion", "--device", "cuda") == 2
    assert "'cuda'" in one_error(capsys)


def test_what_is_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("", ["--data", "x", "--output", "y", "--stage", "decoder", "--minutes", "1", "--device", "tpu"])
    assert ended.value.code == 2
    assert "invalid choice: 'tpu'" in capsys.readouterr().err


def test_data_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--data", f"{tmp_path}/*.tar", "--output", tmp_path / "run", "--stage", "rate_distortion", "--minutes", 1]
    assert run("train_codec.py", *wanted) == 2
    assert one_error(capsys).startswith(f"error: {tmp_path}/*.tar")
    (tmp_path / "odd").touch()  # tags may come from a tagger, which takes seconds to load: places go first
    assert run("train_codec.py", *wanted, "--tags", tmp_path / "odd") == 2
    assert one_error(capsys) == f"error: {tmp_path}/*.tar: No such file or directory"


def test_an_exported_codec_is_called_as_its_folder_and_has_the_card_of_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_tiny_capsule(tmp_path / "source")
    (source / "MODEL_CARD.md").write_text("about others")
    checkpoint = tmp_path / "source" / "checkpoint.pt"
    assert (
        run("export_codec.py", "--checkpoint", checkpoint, "--capsule", tmp_path / "mine", "--companions", source) == 0
    )
    codec = difficmh.load(tmp_path / "mine")
    assert (codec.name, (tmp_path / "mine" / "MODEL_CARD.md").exists()) == ("mine", False)
    assert (
        run("export_codec.py", "--checkpoint", checkpoint, "--capsule", tmp_path / "other", "--companions", "lite") == 2
    )
    assert "trained for 3 tags" in one_error(capsys)
    assert run("export_codec.py", "--checkpoint", checkpoint, "--capsule", tmp_path / "third") == 2
    assert one_error(capsys).endswith("third that tag vocabulary and tagger could come from: give --companions lite")
    missing = tmp_path / "nope.pt"
    assert run("export_codec.py", "--checkpoint", missing, "--capsule", tmp_path / "third") == 2
    assert one_error(capsys) == f"error: {missing}: No such file or directory"
    assert not any((tmp_path / name).exists() for name in ("other", "third"))


def test_a_codec_is_not_exported_with_other_tags_than_it_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_tiny_capsule(tmp_path / "source")
    state = torch.load(source.parent / "checkpoint.pt", weights_only=True)
    torch.save({**state, "options": {"vocabulary": (*TAGS[:2], "truck")}}, tmp_path / "checkpoint.pt")
    wanted = ("--checkpoint", tmp_path / "checkpoint.pt", "--capsule", tmp_path / "a", "--companions", source)
    assert run("export_codec.py", *wanted) == 2
    assert "other tags: 'truck' where the vocabulary has 'tree'" in one_error(capsys)
    assert not (tmp_path / "a").exists()


def test_a_release_of_what_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ("--capsule", tmp_path / "a", "--name", "mine", "--images", "b", "--evaluation", tmp_path / "c")
    assert run("release_codec.py", *wanted, "--companions", "lite", "--checkpoint", tmp_path / "none.pt") == 2
    assert one_error(capsys) == f"error: {tmp_path / 'none.pt'}: No such file or directory"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "evaluation.json").touch()
    assert run("release_codec.py", *wanted, "--companions", "lite", "--checkpoint", tmp_path / "none.pt") == 2
    assert "c holds an evaluation already" in one_error(capsys)
    wanted = (*wanted, "--overwrite")
    torch.save({"weights": 5}, tmp_path / "odd.pt")
    assert run("release_codec.py", *wanted, "--companions", "lite", "--checkpoint", tmp_path / "odd.pt") == 2
    assert "odd.pt is no checkpoint of this program's training" in one_error(capsys)
    assert not (tmp_path / "a").exists()


def test_ray_that_does_not_come_up_is_one_line(
    arguments: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    assert run("train_codec.py", *arguments, "--stage", "rate_distortion", "--workers", 2) == 2
    assert one_error(capsys).startswith("error: Ray can be neither reached nor started: Exception: The current node")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WorkerGroupError("a long trace", {1: ValueError("too few pictures")}), "error: too few pictures"),
        (
            ControllerError(RuntimeError("no\nworkers")),
            "error: ControllerError: Training failed due to controller error",
        ),
    ],
)
def test_what_fails_in_ray_s_workers_is_one_line(
    arguments: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    line: str,
) -> None:
    def failing(self: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.train.torch.TorchTrainer.fit", failing)
    assert run("train_codec.py", *arguments, "--stage", "rate_distortion", "--workers", 2) == 2
    assert one_error(capsys).startswith(line)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
@pytest.mark.timeout(400)
def test_two_workers_train_together(tmp_path: Path, arguments: list[object]) -> None:
    wanted = (*arguments, "--stage", "rate_distortion", "--workers", 2, "--set", "codec_features=0")
    assert run("train_codec.py", *wanted) == 0
    assert (tmp_path / "run/rate_distortion.pt").is_file()
