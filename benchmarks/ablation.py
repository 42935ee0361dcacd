"""What each part of the method is worth: the ablation table of the model card, as Markdown and JSON.

    python -m benchmarks.ablation --data 'train/*.tar' --tags runs/image-tags.json --images 'eval/*.tar' \\
        --output runs/ablation --minutes 20
    python -m benchmarks.ablation --row tags steps --images 'eval/*.tar' --output runs/ablation
    python -m benchmarks.ablation --output runs/ablation --summarise --at 0.2

    semantic      training with the semantic-consistency loss, and with semantic=0, teacher=0: diffusion, then one_step
    tags          decoding steered by tags that the stream pays for, and by none
    adversarial   training with the adversarial loss, and with adversarial=0: one_step
    far           features of reduced pictures in the loss, and with far=0: one_step
    steps         one denoising step, and several (--steps)
    effort        the encoder's search for each picture (--effort), and none
    context       the entropy model trained on, with and without the context of symbols decoded earlier

Rows that train have two sides, from the same --start, for the same --minutes in each stage, with the same options; the
side with the part is the control. Start them where the part can still matter: from --start semantic=rd.pt rather than
from weights that were trained with it. All rows are measured by one evaluation. Run it in the repository's root.

What was made is kept in --output: a capsule that is there is not made again, and interrupted training goes on.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.ablation_context import WITH, WITHOUT
from benchmarks.ablation_setting import MEASURES, ROWS, SIDES, Setting, parse_arguments
from benchmarks.ablation_table import Comparison, Result, compare, markdown
from benchmarks.machine import describe_machine
from difficmh.capsule import MANIFEST, capsule_path
from difficmh.evaluation.contestants import read_learned
from difficmh.evaluation.earlier import read_earlier
from difficmh.evaluation.intervals import RESAMPLES
from difficmh.evaluation.output import Findings
from difficmh.evaluation.summary import Request
from pipeline.errors import JobError
from pipeline.measurement_files import read_files

Command = tuple[str, ...]
Runner = Callable[[Command], None]


@dataclass(frozen=True)
class Job:
    """A capsule to be made, by these commands in their order."""

    capsule: Path
    commands: tuple[Command, ...]


def main(arguments: Sequence[str] | None = None, run: Runner | None = None) -> None:
    """`run` stands in for the processes that are started."""
    setting = parse_arguments(__doc__, arguments)
    jobs, last = list(capsules(setting)), evaluation(setting)
    if setting.dry_run:
        print("\n".join(shlex.join(command) for command in (*(c for job in jobs for c in job.commands), last)))
        return
    if not setting.summarise:
        for job in jobs:
            make(job, run or run_process)
        (run or run_process)(last)
    report(setting)


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
        commands.append((*command, *shlex.split(setting.training_options), *off))
        checkpoint = WITHOUT if "--without-context" in off else stage
    source = ("--companions", str(capsule_path(setting.codec)), "--name", f"{name}-{side}")
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
    command += ("--output", str(setting.output / "evaluation"), "--overwrite")
    command += ("--rates", f"{setting.at:g}", "--bd-range", f"{low:g},{high:g}")
    for option, values in (("--codec", tuple(codecs)), ("--measure", setting.measures or MEASURES)):
        for value in values:
            command += (option, value)
    return (*command, *shlex.split(setting.evaluation_options))


def comparisons(setting: Setting) -> Iterator[tuple[Comparison, tuple[str, str]]]:
    """What is compared, and the descriptions of both codecs, with the part and without."""
    for name in setting.rows:
        row = ROWS[name]
        numbers = {"steps": setting.steps, "effort": setting.effort}
        variants = [variant.format(**numbers) for variant in row.variants]
        places = [_capsule(setting, name, side) if row.stages else setting.codec for side in SIDES]
        for mode in row.modes:
            first, second = (
                f"{place}@{setting.qualities}:{mode}{variant}" for place, variant in zip(places, variants, strict=True)
            )
            names = read_learned(first).name, read_learned(second).name
            compared = Comparison(row.part.format(**numbers), row.against.format(**numbers), mode, *names)
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
