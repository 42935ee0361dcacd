"""What the ablation table compares, and the command line that says so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation_context import WITH
from pipeline.evaluate_request import rate_range

SIDES = ("with", "without")
MEASURES = ("frechet", "classification", "tags")
SEVERAL: Mapping[str, Any] = {"nargs": "+", "action": "extend", "default": []}
"""For argparse: values follow one option or repeat it, as in the jobs."""


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
        "semantic=0, teacher=0",  # what `diffusion` and `one_step` call it
        ("full", "preview"),
        ("diffusion", "one_step"),
        ("--set", "semantic=0", "--set", "teacher=0"),
    ),
    "tags": Row("tags", "no tags", variants=("", ",tags=off")),
    "adversarial": Row("adversarial loss", "adversarial=0", ("full",), ("one_step",), ("--set", "adversarial=0")),
    "far": Row("features of reduced pictures", "far=0", ("full",), ("one_step",), ("--set", "far=0")),
    "steps": Row("one step", "{steps} steps", variants=("", ",steps={steps}")),
    "effort": Row("effort {effort}", "no effort", ("preview",), variants=(",effort={effort}", "")),
    "context": Row("context model", "hyperprior alone", ("preview",), (WITH,), ("--without-context",)),
}


@dataclass(frozen=True)
class Setting:
    """What is compared. `training_options` are those of every training command; rates are in bits per pixel."""

    rows: tuple[str, ...]
    output: Path
    codec: str
    images: tuple[str, ...]
    data: tuple[str, ...]
    tags: str | None
    start: tuple[str, ...]
    minutes: float
    training_options: str
    steps: int
    effort: int
    qualities: str
    measures: tuple[str, ...]
    evaluation_options: str
    at: float
    bd_range: tuple[float, float]
    dry_run: bool
    summarise: bool


def parse_arguments(text: str | None, arguments: Sequence[str] | None) -> Setting:
    """`text` is what the program is about, from its docstring.

    Ends the program with a message where something that the rows need is missing.
    """
    description, _, about = (text or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_what(parser)
    _add_how(parser)
    fields: dict[str, Any] = vars(parser.parse_args(arguments))
    listed = ("rows", "images", "data", "start", "measures")
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
    add("--row", dest="rows", choices=sorted(ROWS), help="any number (default: all)", **SEVERAL)
    add("--output", type=Path, required=True, help="folder for checkpoints, capsules and the evaluation")
    add("--codec", default="lite", help="capsule whose variants are compared, and whose tagger others take")
    add("--steps", type=int, default=4, help="denoising steps of the row steps (default: %(default)s)")
    add("--effort", type=int, default=10, help="gradient steps of the row effort (default: %(default)s)")
    add("--images", **SEVERAL, metavar="URL", help="what jobs/evaluate_codec.py measures on")
    add("--qualities", default="1-4", help="qualities that are measured (default: %(default)s)")
    add("--measure", **SEVERAL, dest="measures", metavar="NAME", help=f"of that job (default: {', '.join(MEASURES)})")
    add("--evaluation-options", default="", metavar="TEXT", help="further options of that job, such as '--limit 8'")
    add("--at", type=float, default=0.1, help="bits per pixel to compare at (default: %(default)s)")
    add("--bd-range", type=rate_range, default="0.05,0.5", help="bits per pixel of BD-rates (default: %(default)s)")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", **SEVERAL, metavar="PATH", help="what jobs/train_codec.py trains on")
    add("--tags", help="JSON of tags by image key, for that job")
    add("--start", **SEVERAL, metavar="[ROW=]PLACE", help="checkpoint or capsule (default: --codec)")
    add("--minutes", type=float, default=20.0, help="of each stage of each side (default: %(default)s)")
    add("--training-options", default="", metavar="TEXT", help="further options of that job, such as '--rate 2e-4'")
    add("--dry-run", action="store_true", help="print all commands and run none")
    add("--summarise", action="store_true", help="only print the table of the evaluation that is there")
