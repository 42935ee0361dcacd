"""What each part of the method is worth: the ablation table of the model card, as Markdown and JSON.

    python -m benchmarks.ablation --data 'train/*.tar' --tags runs/image-tags.json --images 'eval/*.tar' \\
        --output runs/ablation --minutes 20
    python -m benchmarks.ablation --row tags --row steps --images 'eval/*.tar' --output runs/ablation
    python -m benchmarks.ablation --output runs/ablation --summarise --at 0.2

    semantic      training with the semantic-consistency loss, and with semantic=0: diffusion, then one_step
    tags          decoding steered by tags that the stream pays for, and by none
    adversarial   training with the adversarial loss, and with adversarial=0: one_step
    steps         one denoising step, and several (--steps)
    context       the entropy model trained on, with and without the context of symbols decoded earlier

Rows that train have two sides, from the same --start, for the same --minutes in each stage, with the same options; the
side with the part is the control. Start them where the part can still matter: from --start semantic=rd.pt rather than
from weights that were trained with it. All rows are measured by one evaluation. Run it in the repository's root.

What was made is kept in --output: a capsule that is there is not made again, and interrupted training goes on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation_context import WITH, WITHOUT
from benchmarks.ablation_table import Comparison, Result, compare, markdown
from benchmarks.machine import describe_machine
from difficmh.capsule import MANIFEST, capsule_path
from difficmh.evaluation.contestants import read_learned
from difficmh.evaluation.earlier import read_earlier
from difficmh.evaluation.intervals import RESAMPLES
from difficmh.evaluation.output import Findings
from difficmh.evaluation.summary import Request
from pipeline.measurement_files import read_files
from pipeline.rejects import JobError

Command = tuple[str, ...]
Runner = Callable[[Command], None]

SIDES = ("with", "without")
MEASURES = ("frechet", "classification", "tags")


@dataclass(frozen=True)
class Row:
    """A part and what is there without it.

    `stages` are trained on both sides, without it under the options `off`; rows without stages differ in the variants
    of one capsule instead, `variants` with and without. `modes` are those in which the codec is measured.
    """

    part: str
    against: str
    modes: tuple[str, ...] = ("full",)
    stages: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    variants: tuple[str, str] = ("", "")


ROWS: Mapping[str, Row] = {
    "semantic": Row(
        "semantic-consistency loss",
        "semantic=0",
        ("full", "preview"),
        ("diffusion", "one_step"),
        ("--set", "semantic=0"),
    ),
    "tags": Row("tags", "no tags", variants=("", ",tags=off")),
    "adversarial": Row("adversarial loss", "adversarial=0", ("full",), ("one_step",), ("--set", "adversarial=0")),
    "steps": Row("one step", "{steps} steps", variants=("", ",steps={steps}")),
    "context": Row("context model", "hyperprior alone", ("preview",), (WITH,), ("--without-context",)),
}


@dataclass(frozen=True)
class Setting:
    """What is compared. `training` are further options of every training command, `at` is in bits per pixel."""

    rows: tuple[str, ...]
    output: Path
    codec: str
    images: tuple[str, ...]
    data: tuple[str, ...]
    tags: str | None
    start: tuple[str, ...]
    minutes: float
    training: str
    steps: int
    qualities: str
    measures: tuple[str, ...]
    evaluation: str
    at: float
    bd_range: tuple[float, float]
    dry_run: bool
    summarise: bool


@dataclass(frozen=True)
class Job:
    """A capsule to be made, by these commands in their order."""

    capsule: Path
    commands: tuple[Command, ...]


def main(arguments: Sequence[str] | None = None, run: Runner | None = None) -> None:
    """`run` stands in for the processes that are started."""
    setting = parse_arguments(arguments)
    jobs, last = list(capsules(setting)), evaluation(setting)
    if setting.dry_run:
        print("\n".join(shlex.join(command) for command in (*(c for job in jobs for c in job.commands), last)))
        return
    if not setting.summarise:
        for job in jobs:
            make(job, run or run_process)
        (run or run_process)(last)
    report(setting)


def parse_arguments(arguments: Sequence[str] | None) -> Setting:
    """Ends the program with a message where something that the rows need is missing."""
    description, _, about = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_what(parser)
    _add_how(parser)
    fields: dict[str, Any] = vars(parser.parse_args(arguments))
    listed = ("rows", "images", "data", "start", "measures", "bd_range")
    fields |= {name: tuple(fields[name]) for name in listed}
    setting = Setting(**fields | {"rows": tuple(dict.fromkeys(fields["rows"])) or tuple(ROWS)})
    if not setting.images and not setting.summarise:
        parser.error("--images are needed")
    denoising = {"diffusion", "one_step"} & {stage for name in setting.rows for stage in ROWS[name].stages}
    if not setting.summarise and any(ROWS[name].stages for name in setting.rows) and not setting.data:
        parser.error("rows that train need --data")
    if not setting.summarise and denoising and setting.tags is None:
        parser.error("rows that train the denoiser need --tags: it would forget what they mean")
    return setting


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    often: dict[str, Any] = {"action": "append", "default": []}
    add("--row", dest="rows", choices=sorted(ROWS), help="any number of times (default: all)", **often)
    add("--output", type=Path, required=True, help="folder for checkpoints, capsules and the evaluation")
    add("--codec", default="lite", help="capsule whose variants are compared, and whose tagger others take")
    add("--steps", type=int, default=4, help="denoising steps of the row steps (default: %(default)s)")
    add("--images", nargs="+", default=[], help="what jobs/evaluate_codec.py measures on")
    add("--qualities", default="1-4", help="qualities that are measured (default: %(default)s)")
    add("--measure", dest="measures", help=f"as of that job (default: {', '.join(MEASURES)})", **often)
    add("--evaluation", default="", metavar="OPTIONS", help="further options of that job, such as '--limit 8'")
    add("--at", type=float, default=0.1, help="bits per pixel to compare at (default: %(default)s)")
    add("--bd-range", type=float, nargs=2, default=(0.05, 0.5), metavar=("LOW", "HIGH"), help="of BD-rates")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", action="append", default=[], help="what jobs/train_codec.py trains on")
    add("--tags", help="JSON of tags by image key, for that job")
    add("--start", action="append", default=[], metavar="[ROW=]PLACE", help="checkpoint or capsule (default: --codec)")
    add("--minutes", type=float, default=20.0, help="of each stage of each side (default: %(default)s)")
    add("--training", default="", metavar="OPTIONS", help="further options of that job, such as '--rate 2e-4'")
    add("--dry-run", action="store_true", help="print all commands and run none")
    add("--summarise", action="store_true", help="only print the table of the evaluation that is there")


# --- what is run


def capsules(setting: Setting) -> Iterator[Job]:
    """Both sides of each row that trains."""
    for name in setting.rows:
        for side in SIDES if ROWS[name].stages else ():
            yield _side(setting, name, side)


def _side(setting: Setting, name: str, side: str) -> Job:
    row, folder, capsule = ROWS[name], setting.output / "runs" / f"{name}-{side}", _capsule(setting, name, side)
    off = row.off if side == "without" else ()
    commands: list[Command] = []
    checkpoint = ""
    for stage in row.stages:
        command: Command = (*_trainer(stage), "--output", str(folder), "--minutes", f"{setting.minutes:g}")
        command += () if checkpoint else ("--start", _start(setting, name))
        for place in setting.data:
            command += ("--data", place)
        command += ("--tags", setting.tags) if setting.tags else ()
        commands.append((*command, *shlex.split(setting.training), *off))
        checkpoint = WITHOUT if "--without-context" in off else stage
    source = ("--from", str(capsule_path(setting.codec)), "--name", f"{name}-{side}")
    export = ("--checkpoint", str(folder / f"{checkpoint}.pt"), "--capsule", str(capsule), *source)
    return Job(capsule, (*commands, ("python", "jobs/export_codec.py", *export)))


def _trainer(stage: str) -> Command:
    if stage == WITH:
        return ("python", "-m", "benchmarks.ablation_context", "--stage", "rate_distortion")
    return ("python", "jobs/train_codec.py", "--stage", stage)


def _start(setting: Setting, name: str) -> str:
    """What `--start` says of the row, else what it says of all, else the codec."""
    own = [place.partition("=")[2] for place in setting.start if place.partition("=")[0] == name]
    general = [place for place in setting.start if place.partition("=")[0] not in ROWS]
    return [setting.codec, *general, *own][-1]


def _capsule(setting: Setting, name: str, side: str) -> Path:
    return setting.output / "capsules" / f"{name}-{side}"


def evaluation(setting: Setting) -> Command:
    """All rows in one pass, each codec once."""
    codecs = dict.fromkeys(codec for _, pair in comparisons(setting) for codec in pair)
    low, high = setting.bd_range
    command: Command = ("python", "jobs/evaluate_codec.py", "--images", *setting.images)
    command += ("--output", str(setting.output / "evaluation"))
    command += ("--rates", f"{setting.at:g}", "--bd-range", f"{low:g},{high:g}")
    for option, values in (("--codec", tuple(codecs)), ("--measure", setting.measures or MEASURES)):
        for value in values:
            command += (option, value)
    return (*command, *shlex.split(setting.evaluation))


def comparisons(setting: Setting) -> Iterator[tuple[Comparison, tuple[str, str]]]:
    """What is compared, and the descriptions of both codecs, with the part and without."""
    for name in setting.rows:
        row = ROWS[name]
        variants = [variant.format(steps=setting.steps) for variant in row.variants]
        places = [_capsule(setting, name, side) if row.stages else setting.codec for side in SIDES]
        for mode in row.modes:
            first, second = (
                f"{place}@{setting.qualities}:{mode}{variant}" for place, variant in zip(places, variants, strict=True)
            )
            names = read_learned(first).name, read_learned(second).name
            compared = Comparison(row.part, row.against.format(steps=setting.steps), mode, *names)
            yield compared, (f"difficmh:{first}", f"difficmh:{second}")


def make(job: Job, run: Runner) -> None:
    """Runs a job whose capsule is not there yet. Ends the program where other commands have begun to make it."""
    commands = [list(command) for command in job.commands]
    record = job.capsule.with_name(f"{job.capsule.name}.json")
    if record.exists() and json.loads(record.read_text()) != commands:
        raise SystemExit(f"other commands made or began {job.capsule} ({record}): take another --output")
    if (job.capsule / MANIFEST).exists():
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(commands, indent=1) + "\n")
    for command in job.commands:
        run(command)


def run_process(command: Command) -> None:
    """Its output goes to standard error, so that standard output is the table alone."""
    _, *arguments = command
    print(shlex.join(command), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr)


# --- report


def report(setting: Setting) -> None:
    """Prints the table and all numbers, and keeps them in `ablation.md` and `ablation.json`."""
    try:
        findings = read_earlier(*read_files(setting.output / "evaluation"), (setting.at,))
        request = Request((setting.at,), setting.bd_range, RESAMPLES)
        found = [compare(findings, one, request) for one, _ in comparisons(setting)]
    except (JobError, ValueError) as error:
        raise SystemExit(str(error)) from error
    metrics = [*findings.metrics, *(kept.metric for kept in findings.kept)]
    table = f"{caption(setting, findings)}\n\n{markdown(found, metrics)}\n"
    numbers = json.dumps(summary(setting, found), indent=2)
    (setting.output / "ablation.md").write_text(table, encoding="utf-8")
    (setting.output / "ablation.json").write_text(numbers + "\n", encoding="utf-8")
    print(f"{table}\n{numbers}")


def caption(setting: Setting, findings: Findings) -> str:
    """What the numbers of the table are, and what they were measured on."""
    pictures, machine = len({one.image for one in findings.measurements}), describe_machine()
    return (
        f"With the part less without it, at {setting.at:g} bits per pixel; bits between {setting.bd_range[0]:g} and "
        f"{setting.bd_range[1]:g}. Brackets: 95 % over {pictures} pictures, in pairs; not over training runs.\n"
        f"Trained rows: {setting.minutes:g} minutes for each stage and side. {machine.cpu}, {machine.cores} cores, "
        f"accelerator {machine.accelerator}, {machine.date}."
    )


def summary(setting: Setting, found: Sequence[Result]) -> dict[str, object]:
    """Everything in the table with the figures of both sides, the commands, and the machine."""
    return {
        "rows": [asdict(result) for result in found],
        "commands": [shlex.join(command) for job in capsules(setting) for command in job.commands],
        "setting": {name: str(value) if isinstance(value, Path) else value for name, value in vars(setting).items()},
        "machine": asdict(describe_machine()),
    }


if __name__ == "__main__":
    main()
