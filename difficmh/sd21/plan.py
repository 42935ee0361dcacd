"""What a preset's capsule is made of, what of it is here already, and what would be downloaded.

No networks here: a plan is made, shown and refused without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from difficmh.errors import CapsuleError
from difficmh.sd21.fetch import Fetched, Fetcher, require_space
from difficmh.sd21.sources import RATES, Source, preset_sources

PRESETS: Mapping[str, int] = {f"sd21-r{rate}": rate for rate in RATES}
"""Name of a released model to the weight of the rate in its loss."""

CHECKPOINT, STABLE_DIFFUSION, TAGGER = "checkpoint", "stable_diffusion", "tagger"

CAPSULE_BYTES: Mapping[str, int] = {"float32": 8_190_000_000, "bfloat16": 4_200_000_000}
"""Roughly what the capsule of a released model takes, by the dtype of its weights."""

ABOUT_MEGABYTE = 1_000_000

RATE_IN_PLACE = re.compile(r"sd21-r(\d+)(?!\d)|CNscale[\d.]+_\d+_\d+_(\d+)_\d+_WTagGCM")
RATE_IN_NAME = re.compile(r"(?<![a-z0-9])r(\d+)(?![a-z0-9])", re.IGNORECASE)
"""How names tell the rate of a checkpoint: folders by preset or by the official naming of runs, files also by `r8`."""


@dataclass(frozen=True)
class PlannedFile:
    """A file of the plan: its role, where it comes from, its name in the folder of downloads, and what is here.

    `here` are bytes that are on this machine already, also of an interrupted download; `size` is what is stated or to
    be expected, None where nothing is known.
    """

    role: str
    source: Source
    name: str
    here: int
    whole: bool

    @property
    def size(self) -> int | None:
        return self.source.size or self.source.about

    @property
    def missing(self) -> int:
        """Bytes that would be downloaded, as far as known."""
        return 0 if self.whole else max((self.size or 0) - self.here, 0)

    def __str__(self) -> str:
        size = "size unknown" if self.size is None else _readable(self.size)
        state = "here" if self.whole else "to be downloaded" if not self.here else f"{_readable(self.here)} of it here"
        return f"{self.role}: {self.source.location} ({size}; {state})"


def plan(name: str, others: Mapping[str, str | None], folder: Path) -> list[PlannedFile]:
    """The files of a preset's capsule. `others` are locations by role that replace or join the released ones.

    Roles are those of `sources.py`, beside them `stable_diffusion` (UNet, autoencoder and text tower from a
    file of their own) and `tagger` (RAM++ from its own release), which the checkpoint has too; None changes nothing. A
    SHA-256 may follow a location (`Source.parse`).
    `folder` is that of downloads. Raises ValueError for a name that no released model has, and
    CapsuleError for a checkpoint that is of another one by its name.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no released model {name!r}; there are {', '.join(PRESETS)}")
    sources = dict(preset_sources(PRESETS[name]))
    _check_rate(name, others.get(CHECKPOINT) or "")
    sources |= {role: Source.parse(location) for role, location in others.items() if location is not None}
    return [_planned(role, source, name, Fetcher(folder)) for role, source in sources.items()]


def _check_rate(name: str, location: str) -> None:
    """Refuses what contradicts itself. All released models have the same tensors: nothing else would notice."""
    file = location.partition("?")[0].partition("#")[0].rpartition("/")[2]
    places = (found[1] or found[2] for found in RATE_IN_PLACE.finditer(location))
    stated = {int(rate) for rate in (*places, *RATE_IN_NAME.findall(file))} & set(RATES)
    if stated and PRESETS[name] not in stated:
        rates = " or ".join(f"sd21-r{rate}" for rate in sorted(stated))
        raise CapsuleError(f"{location} is of {rates} by its name, not of {name}: fetch that, or rename the file")


def _planned(role: str, source: Source, preset: str, fetcher: Fetcher) -> PlannedFile:
    if "://" not in source.location:
        path = Path(source.location)
        size = path.stat().st_size if path.is_file() else 0
        return PlannedFile(role, source, role, size, whole=path.is_file())
    base = source.location.partition("?")[0].rpartition("/")[2]
    name = role if "/" in role else f"{preset if role == CHECKPOINT else role}/{base}"
    target = fetcher.folder / name
    known = source.sha256 is not None or source.location in fetcher.records()
    partial = target.with_name(f"{target.name}.partial")
    whole = known and target.is_file()
    file = target if whole else partial
    return PlannedFile(role, source, name, file.stat().st_size if file.is_file() else 0, whole)


def describe(files: Iterable[PlannedFile], output: Path, dtype: str) -> list[str]:
    """The plan in lines for a person: each file, the sum, and what will be written."""
    files = list(files)
    unknown = sum(file.size is None and not file.whole for file in files)
    more = f", and {unknown} of unknown size" if unknown else ""
    return [
        *(str(file) for file in files),
        f"to download: {_readable(sum(file.missing for file in files))}{more}",
        f"to write: about {_readable(CAPSULE_BYTES[dtype])} to {output} ({dtype})",
    ]


def check_before(files: Iterable[PlannedFile], folder: Path, output: Path, dtype: str) -> None:
    """Raises CapsuleError for what would be found out only after hours: no room, a target that exists, a lost file."""
    if output.exists():
        raise CapsuleError(f"{output} exists already: remove it, or choose another place with --output")
    files = list(files)
    for file in files:
        if "://" not in file.source.location and not file.whole:
            raise CapsuleError(f"there is no file {file.source.location} ({file.role})")
    for place in (folder, output.parent):
        place.mkdir(parents=True, exist_ok=True)
    download, capsule = sum(file.missing for file in files), CAPSULE_BYTES[dtype]
    if folder.stat().st_dev == output.parent.stat().st_dev:
        require_space(folder, download + capsule)
    else:
        require_space(folder, download)
        require_space(output.parent, capsule)


def fetch_all(files: Iterable[PlannedFile], fetcher: Fetcher) -> dict[str, Fetched]:
    """Every file of a plan by its role, small ones first. Raises CapsuleError as `Fetcher.fetch` does."""
    order = sorted(files, key=lambda file: file.size or 0)
    return {file.role: fetcher.fetch(file.source, file.name) for file in order}


def remove_downloads(files: Iterable[PlannedFile], fetched: Mapping[str, Fetched], folder: Path) -> int:
    """Removes from the folder of downloads what a plan's addresses brought there; returns the bytes that are free.

    A file that is given by its path stays, wherever it lies. What is known of the removed ones stays recorded: another
    fetch of the same address demands the same contents.
    """
    files = list(files)
    kept = {fetched[file.role].path.resolve() for file in files if "://" not in file.source.location}
    freed = 0
    for file in files:
        found = fetched[file.role]
        if "://" in file.source.location and found.path == folder / file.name and found.path.resolve() not in kept:
            found.path.unlink(missing_ok=True)
            freed += found.size
            with suppress(OSError):  # others' downloads are in there
                found.path.parent.rmdir()
    return freed


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 100 * ABOUT_MEGABYTE else f"{size / 1e6:.2f} MB"
