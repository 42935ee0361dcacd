"""A codec at its qualities, from its description on a command line.

webp   jpeg@10,30,50          a baseline at its usual qualities, or at these
difficmh:lite@1-6:preview     a capsule (built in, or a directory), qualities, mode (default: all, full)
difficmh:lite:full,steps=4,tags=off,effort=10,name=mine     the same in a variant, each part of it optional (`Variant`)
compressai:ARCHITECTURE=FILE[,FILE…]   a network of compressai with weights from files, smallest rate first
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from difficmh.baselines import BASELINES, load_baseline
from difficmh.config import MAX_EFFORT
from difficmh.evaluation.graders import Image
from difficmh.images import to_pixels
from difficmh.limits import MODES, Mode, check_mode
from difficmh.sampler import TRAIN_STEPS

LARGEST = {"steps": TRAIN_STEPS, "effort": MAX_EFFORT}
"""Options that are numbers, from 1."""


class Contestant(Protocol):
    """A codec at its qualities. Images are `(H, W, 3)` uint8, decoded to the same shape."""

    @property
    def name(self) -> str: ...
    @property
    def qualities(self) -> Sequence[int]: ...
    def compress(self, image: Image, quality: int) -> bytes: ...
    def decompress(self, data: bytes) -> Image: ...


@dataclass(frozen=True)
class Variant:
    """How a codec of this library is used.

    `steps` of denoising, None for what the mode has. Without `tags` none are given to the encoder: streams hold an
    empty list, which is shorter, and no tag steers the denoiser. `effort` is the encoder's.
    `name` in reports, None for one that says all this.
    """

    mode: Mode = "full"
    steps: int | None = None
    tags: bool = True
    effort: int = 0
    name: str | None = None

    def name_of(self, capsule: str) -> str:
        """What `capsule` in this variant is called, such as `lite full, 4 steps, no tags`."""
        parts = [f"{capsule.rstrip('/').rpartition('/')[2]} {self.mode}"]
        if self.steps is not None:
            parts.append("1 step" if self.steps == 1 else f"{self.steps} steps")
        if not self.tags:
            parts.append("no tags")
        if self.effort:
            parts.append(f"effort {self.effort}")
        return self.name or ", ".join(parts)


@dataclass(frozen=True)
class LearnedDescription:
    """A description of a codec of this library, read: no `qualities` stand for all that the capsule has."""

    capsule: str
    qualities: tuple[int, ...]
    variant: Variant

    @property
    def name(self) -> str:
        return self.variant.name_of(self.capsule)


class LearnedContestant:
    """A codec of this library, the tagger included in compression.

    Raises ValueError for a quality that the capsule has not, CapsuleError where it cannot be loaded.
    """

    def __init__(self, described: LearnedDescription, device: str = "cpu") -> None:
        import difficmh

        self.name = described.name
        self._codec = difficmh.load(described.capsule, device)
        known = self._codec.qualities
        if unknown := [quality for quality in described.qualities if quality not in known]:
            raise ValueError(f"{described.capsule} has qualities {known[0]} to {known[-1]}, not {unknown[0]}")
        self.qualities = described.qualities or tuple(known)
        self._variant = described.variant

    def compress(self, image: Image, quality: int) -> bytes:
        tags: list[list[str]] | None = None if self._variant.tags else [[]]
        return self._codec.compress([image], quality=quality, tags=tags, effort=self._variant.effort)[0]

    def decompress(self, data: bytes) -> Image:
        tensor = self._codec.decompress([data], mode=self._variant.mode, steps=self._variant.steps)[0]
        return to_pixels(tensor)


def load_contestants(texts: Sequence[str], device: str = "cpu") -> list[Contestant]:
    """Raises ValueError for a description that makes no sense, or two of one name."""
    contestants = [load_contestant(text, device) for text in texts]
    names = [contestant.name for contestant in contestants]
    if repeated := {name for name in names if names.count(name) > 1}:
        listed = ", ".join(sorted(repeated))
        raise ValueError(
            f"{listed} is there more than once; list its qualities behind one @, or tell capsules by name="
        )
    return contestants


def load_contestant(text: str, device: str = "cpu") -> Contestant:
    """A codec from its description (see the module's text); raises ValueError for one that makes no sense."""
    family, separator, rest = text.partition(":")
    if separator and family == "difficmh":
        return LearnedContestant(read_learned(rest), device)
    if separator and family == "compressai":
        from difficmh.evaluation.compressai_models import load_compressai

        return load_compressai(rest, device)
    name, qualities = name_and_qualities(text)
    if name not in BASELINES:
        known = ", ".join(BASELINES)
        raise ValueError(f"{text!r} is neither difficmh:CAPSULE nor compressai:ARCHITECTURE=FILE nor one of {known}")
    return load_baseline(name, qualities)


def read_learned(text: str) -> LearnedDescription:
    """What stands behind `difficmh:`. Raises ValueError for qualities or a variant that make no sense."""
    before, _, last = text.rpartition(":")
    mode, *options = last.split(",")
    if mode not in MODES:  # the capsule may have a colon in its path, and qualities a comma
        return LearnedDescription(*name_and_qualities(text), Variant())
    variant = _variant(mode, options)
    return LearnedDescription(*name_and_qualities(before), variant)


def _variant(mode: Mode, options: Sequence[str]) -> Variant:
    given: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name in given or not _is_option(name, value):
            known = ", ".join(f"{number}=1 to {most}" for number, most in LARGEST.items())
            raise ValueError(f"{option!r} is none of {known}, tags=off, name=TEXT, each at most once")
        given[name] = value
    steps = int(given["steps"]) if "steps" in given else None
    check_mode(mode, steps, None)
    return Variant(mode, steps, "tags" not in given, int(given.get("effort", 0)), given.get("name"))


def _is_option(name: str, value: str) -> bool:
    if name in LARGEST:
        return re.fullmatch(r"[0-9]{1,4}", value) is not None and 1 <= int(value) <= LARGEST[name]
    return (name, value) == ("tags", "off") or (name == "name" and bool(value) and value not in BASELINES)


def name_and_qualities(text: str) -> tuple[str, tuple[int, ...]]:
    """`name@1-3,6` to name and (1, 2, 3, 6); no qualities where none are given. Raises ValueError for other lists."""
    name, _, listed = text.partition("@")
    qualities: list[int] = []
    for part in listed.split(",") if listed else ():
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        several = range(int(found[1]), int(found[2] or found[1]) + 1) if found else ()
        if not several:  # nothing that can be read, or a range that runs backwards
            raise ValueError(f"{listed!r} in {text!r} is no list of qualities such as 1-6 or 10,30,50")
        qualities += several
    return name, tuple(dict.fromkeys(qualities))
