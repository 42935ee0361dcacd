"""The arguments of `jobs/train_codec.py` as a training job."""

from __future__ import annotations

import argparse
import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from difficmh.capsule import capsule_or_path
from difficmh.errors import CapsuleError
from difficmh.limits import DEVICES
from difficmh.training.data import CROP
from difficmh.training.job import TrainingJob
from difficmh.training.settings import LossSettings
from difficmh.training.stages import STAGES


@dataclass(frozen=True)
class TrainingCommand:
    """What to train, and by how many workers of a cluster; one trains in this process."""

    job: TrainingJob
    workers: int


def parse(text: str | None, command: Sequence[str] | None) -> TrainingCommand:
    """`text` is the job's docstring: what it does, then examples. Exits with status 2 for what makes no sense."""
    parser = _parser(text or "")
    arguments = parser.parse_args(command)
    try:
        settings = LossSettings().changed(arguments.set)
    except ValueError as error:
        parser.error(f"--set: {error}")
    _check_numbers(parser, arguments)
    job = TrainingJob(
        # Absolute, all of them: workers of a cluster run in folders of their own.
        data=tuple(Path(path).absolute() for pattern in arguments.data for path in _matching(pattern)),
        output=Path(arguments.output).absolute(),
        stage=arguments.stage,
        minutes=arguments.minutes,
        device=arguments.device,
        tags=arguments.tags,
        batch=arguments.batch_size,
        learning_rate=arguments.rate,
        seed=arguments.seed,
        config=Path(arguments.config).absolute() if arguments.config else None,
        compile=arguments.compile,
        settings=settings,
    )
    if arguments.start and not job.checkpoint.exists():  # else it goes on from there: what it began with may be gone
        job = replace(job, start=_start(parser, arguments.start))
    return TrainingCommand(job, arguments.workers)


def _check_numbers(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if not 0 < arguments.minutes < math.inf:
        parser.error(f"--minutes {arguments.minutes:g}: a budget is more than nothing")
    if arguments.rate is not None and not 0 < arguments.rate < math.inf:
        parser.error(f"--rate {arguments.rate:g}: a learning rate is more than nothing")
    if arguments.batch_size < 1 or arguments.workers < 1:
        parser.error("--batch-size and --workers are 1 at least")


def _matching(pattern: str) -> list[str]:
    """What a glob matches; itself where that is nothing, so that reading names it."""
    return sorted(glob.glob(pattern)) or [pattern]


def _start(parser: argparse.ArgumentParser, text: str) -> Path:
    try:
        return _place(text)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --start: {error}")


def _place(text: str) -> Path:
    try:
        return capsule_or_path(text)
    except CapsuleError as error:
        raise argparse.ArgumentTypeError(f"no file {text}, and {error}") from error


def _parser(text: str) -> argparse.ArgumentParser:
    description, _, examples = text.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}  # a shell may expand a pattern, or the user repeat it
    add("--data", **several, required=True, metavar="PATH", help="tar shards or folders of images, or patterns of them")
    add("--output", required=True, help="folder for checkpoints and logs")
    add("--stage", required=True, choices=tuple(STAGES))
    add("--minutes", type=float, required=True, help="time budget of the stage over all resumed runs")
    add("--device", choices=DEVICES, default="cpu", help="of the networks (default: %(default)s)")
    add("--start", help="checkpoint or capsule to start from instead of the previous stage")
    add("--config", help="JSON like a capsule's config.json, for networks of other sizes")
    add("--tags", type=_place, help="JSON of tags by image key, or a capsule whose tagger finds them, such as lite")
    crops = f"crops of {CROP} x {CROP} per step"
    add("--batch-size", type=int, default=TrainingJob.batch, help=f"{crops} (default: %(default)s)")
    rates = ", ".join(f"{stage.PEAK_RATE:g} in {name}" for name, stage in STAGES.items())
    add("--rate", type=float, help=f"peak learning rate (default: {rates})")
    add("--seed", type=int, default=0)
    add("--set", **several, default=[], metavar="NAME=NUMBER", help="weights of losses; see docs/training.md")
    add("--compile", action="store_true", help="compile the networks: a minute first, faster on a GPU")
    add("--workers", type=int, default=1, help="more than one: Ray Train workers on the cluster")
    return parser
