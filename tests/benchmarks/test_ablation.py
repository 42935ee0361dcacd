"""The driver of the ablations: its commands are ones that the jobs take, and what is there is not made again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from benchmarks import ablation
from difficmh.capsule import MANIFEST
from difficmh.evaluation.contestants import read_learned
from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.measure import Plan
from difficmh.evaluation.output import Findings, write_report
from difficmh.evaluation.rows import flat_rows
from difficmh.evaluation.summary import Request
from difficmh.training.command import parse as parse_training
from pipeline.evaluate_request import parse as parse_evaluation
from pipeline.measurement_files import write_rows
from tests.difficmh.evaluation.pictures import synthetic


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    shared = ["--images", "eval/*.tar", "--data", "train/*.tar", "--tags", "tags.json"]
    return [*shared, "--output", str(tmp_path), "--minutes", "2.5", "--training-options", "--batch-size 12"]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "RESAMPLES", 10)


class Runner:
    """Notes the commands; makes of an export an empty capsule, and of an evaluation one of codecs of known savings."""

    def __init__(self) -> None:
        self.commands: list[ablation.Command] = []

    def __call__(self, command: ablation.Command) -> None:
        self.commands.append(command)
        if command[1] == "jobs/export_codec.py":
            capsule = Path(command[command.index("--capsule") + 1])
            capsule.mkdir()
            (capsule / MANIFEST).touch()
        elif command[1] == "jobs/evaluate_codec.py":
            request = parse_evaluation("", command[2:])
            names = [read_learned(text.removeprefix("difficmh:")).name for text in request.codecs]
            measured = [one for place, name in enumerate(names) for one in synthetic(name, 0.9**place)]
            found = Findings(Plan(request.codecs), measured, [PSNR, MS_SSIM])
            write_report(request.output, found, Request(request.rates, request.bd_range, resamples=5))
            write_rows(request.output, flat_rows(measured))

    @property
    def scripts(self) -> list[str]:
        """What was run, without arguments."""
        return [command[2] if command[1] == "-m" else command[1] for command in self.commands]


def dry(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    runner = Runner()
    ablation.main([*arguments, "--dry-run"], runner)
    assert runner.commands == []
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_a_dry_run_prints_all_commands_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    commands = dry(arguments, capsys)
    assert list(tmp_path.iterdir()) == []
    assert (
        shlex.join(commands[3]) == "python jobs/train_codec.py --stage diffusion"
        f" --output {tmp_path}/runs/semantic-without --minutes 2.5 --start lite --data 'train/*.tar' --tags tags.json"
        " --batch-size 12 --set semantic=0 --set teacher=0"
    )
    trained = [command for command in commands if "--minutes" in command]
    assert [command[command.index("--stage") + 1] for command in trained] == [
        *("diffusion", "one_step") * 2,
        *("one_step",) * 4,
        *("rate_distortion",) * 2,
    ]
    assert [command[1] for command in commands].count("jobs/export_codec.py") == 8
    assert [command[1] for command in commands].count("jobs/evaluate_codec.py") == 1


def test_both_sides_differ_in_the_part_alone(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    commands = [" ".join(command) for command in dry(arguments, capsys) if "--minutes" in command]
    off = [" --set semantic=0 --set teacher=0", " --set adversarial=0", " --set far=0", " --without-context"]
    with_part = [command for command in commands if "-with " in command]
    without = [command.replace("-without ", "-with ") for command in commands if "-without " in command]
    for option in off:
        without = [command.replace(option, "") for command in without]
    assert without == with_part
    assert len(with_part) == 5


def test_the_jobs_take_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tags.json").touch()
    commands = dry(arguments, capsys)
    jobs = [parse_training("", command[2:]).job for command in commands if command[1] == "jobs/train_codec.py"]
    switched_off = ("semantic", "adversarial", "far")
    assert [(job.stage, [name for name in switched_off if not getattr(job.settings, name)]) for job in jobs] == [
        ("diffusion", []),
        ("one_step", []),
        ("diffusion", ["semantic"]),
        ("one_step", ["semantic"]),
        ("one_step", []),
        ("one_step", ["adversarial"]),
        ("one_step", []),
        ("one_step", ["far"]),
    ]
    assert {job.batch for job in jobs} == {12}
    assert [job.start is not None for job in jobs] == [True, False, True, False, *[True] * 4], (
        "then from the one before"
    )
    request = parse_evaluation("", commands[-1][2:])
    assert len(request.codecs) == len(set(request.codecs)) == 15, "the plain codec is in two rows"
    assert {"difficmh:lite@1-4:full", "difficmh:lite@1-4:full,tags=off"} < set(request.codecs)
    assert "difficmh:lite@1-4:full,steps=4" in request.codecs
    assert {"difficmh:lite@1-4:preview", "difficmh:lite@1-4:preview,effort=10"} < set(request.codecs)


def test_checkpoints_are_exported_by_the_names_that_training_gives(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    exports = [command for command in dry(arguments, capsys) if command[1] == "jobs/export_codec.py"]
    places = [Path(command[command.index("--checkpoint") + 1]) for command in exports]
    assert [f"{place.parent.name}/{place.name}" for place in places] == [
        "semantic-with/one_step.pt",
        "semantic-without/one_step.pt",
        "adversarial-with/one_step.pt",
        "adversarial-without/one_step.pt",
        "far-with/one_step.pt",
        "far-without/one_step.pt",
        "context-with/entropy.pt",
        "context-without/entropy_without_context.pt",
    ]


def test_rows_can_start_in_different_places(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    starts = ["--start", "semantic=rd.pt", "--start", "all=in.pt"]
    commands = dry([*arguments, *starts, "--row", "context", "--row", "semantic"], capsys)
    found = {
        (c[c.index("--output") + 1].rpartition("/")[2], c[c.index("--start") + 1]) for c in commands if "--start" in c
    }
    assert found == {
        ("context-with", "all=in.pt"),
        ("context-without", "all=in.pt"),
        ("semantic-with", "rd.pt"),
        ("semantic-without", "rd.pt"),
    }


def test_capsules_are_made_once_and_the_table_is_kept(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--row", "adversarial", "--row", "steps", "--row", "steps"]
    first, second = Runner(), Runner()
    ablation.main([*arguments, *rows], first)
    assert first.scripts == [*("jobs/train_codec.py", "jobs/export_codec.py") * 2, "jobs/evaluate_codec.py"]
    printed = capsys.readouterr().out
    ablation.main([*arguments, *rows], second)
    assert second.scripts == ["jobs/evaluate_codec.py"]
    table = (tmp_path / "ablation.md").read_text()
    assert table in printed
    assert [line.split(" | ")[:3] for line in table.splitlines() if line.startswith("| ")][2:] == [
        ["| adversarial loss", "adversarial=0", "full"],
        ["| one step", "4 steps", "full"],
    ]
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["rows"][0]["bd_rates"]["psnr"]["value"] == pytest.approx(100 / 0.9 - 100)
    assert len(content["commands"]) == 4
    assert content["machine"]["date"] in table


def test_the_table_again_at_another_rate(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main([*arguments, "--row", "tags"], Runner())
    runner = Runner()
    ablation.main(["--output", str(tmp_path), "--row", "tags", "--summarise", "--at", "0.2"], runner)
    assert runner.commands == []
    assert "at 0.2 bits per pixel" in capsys.readouterr().out


def test_interrupted_training_goes_on(arguments: list[str]) -> None:
    def interrupted(command: ablation.Command) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablation.main([*arguments, "--row", "context"], interrupted)
    runner = Runner()
    ablation.main([*arguments, "--row", "context"], runner)
    assert runner.scripts.count("benchmarks.ablation_context") == 2


def test_the_command_line_is_that_of_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """Values follow one option or repeat it; a range of rates is one word."""
    lists = ["--row", "tags", "steps", "--images", "a", "b", "--images", "c", "--data", "d", "e", "--measure", "lpips"]
    command = dry(["--output", "out", *lists, "--measure", "dists", "tags", "--bd-range", "0.1,0.4"], capsys)[-1]
    request = parse_evaluation("", command[2:])
    assert (request.images, request.measures) == (("a", "b", "c"), ("lpips", "dists", "tags"))
    assert request.bd_range == (0.1, 0.4)


def test_other_commands_do_not_pass_for_these(arguments: list[str]) -> None:
    ablation.main([*arguments, "--row", "context"], Runner())
    with pytest.raises(SystemExit, match=r"other commands made or began .*context-with"):
        ablation.main([*arguments, "--row", "context", "--minutes", "9"], Runner())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "--images are needed"),
        (["--images", "a"], "rows that train need --data"),
        (["--images", "a", "--data", "b"], "need --tags"),
        (["--images", "a", "--row", "colour"], "invalid choice: 'colour'"),
        (["--images", "a", "--bd-range", "0.5,0.1"], "'0.5,0.1' is not two rates in rising order"),
    ],
)
def test_what_is_missing(wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ablation.main(["--output", "out", *wrong], Runner())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_nothing_to_summarise(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no evaluation"):
        ablation.main(["--output", str(tmp_path), "--summarise"], Runner())
