"""What an evaluation is asked for on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.job import add_storage_options, argument, whole_number

Numbers = tuple[float, ...]

MEASURING = {
    "images": "--images",
    "codecs": "--codec",
    "measures": "--measure",
    "limit": "--limit",
    "workers": "--workers",
    "detect_in": "--detect-in",
    "crop_rate": "--crop-rate",
    "device": "--device",
    "storage_options": "--storage-options",
}
ALSO_LATER = ("--output", "--overwrite", "--rates", "--bd-range")


@dataclass(frozen=True)
class EvaluateRequest:
    """`workers` is the number of Ray actors, None for this process alone; rates are in bits per pixel.

    `earlier` is the folder of an evaluation that is summarised again; then nothing is measured.
    """

    images: tuple[str, ...]
    codecs: tuple[str, ...]
    measures: tuple[str, ...]
    output: Path
    limit: int | None
    detect_in: str
    rates: Numbers
    bd_range: tuple[float, float]
    crop_rate: float
    workers: int | None
    device: str
    storage_options: Mapping[str, Any]
    earlier: Path | None = None
    overwrite: bool = False

    @property
    def worker_gpus(self) -> int:
        """GPUs that each actor has to itself."""
        return int(self.device == "cuda")


def parse(text: str | None, arguments: Sequence[str] | None) -> EvaluateRequest:
    """`text` is the help's: what the job does, and, after an empty line, what codecs and measures may be.

    Wrong usage ends the process with status 2.
    """
    description, _, epilog = (text or "").partition("\n\n")
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=epilog, formatter_class=formatter)
    _add_what(parser)
    _add_how(parser)
    fields = vars(parser.parse_args(arguments))
    _check(parser, fields)
    listed = {name: tuple(fields[name]) for name in ("images", "codecs", "measures")}
    return EvaluateRequest(**(fields | listed))


def _check(parser: argparse.ArgumentParser, fields: Mapping[str, Any]) -> None:
    """Either there is something to measure, or nothing is asked for that only measuring could give."""
    usual = vars(parser.parse_args(["--output", "."]))
    given = [option for name, option in MEASURING.items() if fields[name] != usual[name]]
    if fields["earlier"] and given:
        parser.error(f"--from measures nothing: it goes with {', '.join(ALSO_LATER)}, not with {', '.join(given)}")
    if not fields["earlier"] and not (fields["images"] and fields["codecs"]):
        parser.error("--images and --codec are required, or --from")


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--images", **several, metavar="URL", help="images, folders of them, or WebDataset shards")
    add("--codec", **several, dest="codecs", metavar="CODEC", help="any number, see below")
    add("--measure", **several, dest="measures", metavar="NAME", help="any number, see below")
    add("--from", type=Path, dest="earlier", metavar="DIR", help="output of an earlier run, for other rates")
    add("--output", type=Path, required=True, metavar="DIR", help="local folder for the report")
    add("--overwrite", action="store_true", help="replace an earlier evaluation in that folder")
    add("--limit", type=whole_number(1), metavar="N", help="the first N images only")
    add("--detect-in", default="*", metavar="PATTERN", help="detect only in images of such names, such as '*street*'")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    rates = argument(_rates, "a list of rates in rising order, such as 0.1,0.2")
    add("--rates", type=rates, default="0.05,0.1,0.2,0.3,0.4", help="bits per pixel to compare at (%(default)s)")
    ranged = "bits per pixel within which BD-rates are taken (%(default)s)"
    add("--bd-range", type=rate_range, default="0.05,0.5", help=ranged)
    add("--crop-rate", type=argument(_rate, "a rate"), default="0.1", help="bits per pixel of crops (%(default)s)")
    add("--workers", type=whole_number(1), metavar="N", help="N actors on Ray, whose seconds compete (default: none)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="of the networks (default: %(default)s)")
    add_storage_options(parser)


def _rate(text: str) -> float:
    if not 0 < (rate := float(text)) < 100:
        raise ValueError("not a rate")
    return rate


def _rates(text: str) -> Numbers:
    rates = tuple(_rate(part) for part in text.split(","))
    if list(rates) != sorted(set(rates)):
        raise ValueError("not in rising order")
    return rates


def _two_rates(text: str) -> tuple[float, float]:
    low, high = _rates(text)  # ValueError where there are not two
    return low, high


rate_range = argument(_two_rates, "two rates in rising order, such as 0.05,0.5")
"""For argparse: bits per pixel."""
