"""A codec at its qualities, from its description on a command line.

webp   jpeg@10,30,50          a baseline at its usual qualities, or at these
difficmh:lite@1-6:preview     a capsule (built in, or a directory), qualities, mode (default: all, full)
compressai:ARCHITECTURE=FILE[,FILE…]   a network of compressai with weights from files, smallest rate first
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from difficmh.baselines import BASELINES, load_baseline
from difficmh.evaluation.graders import Image

Mode = Literal["preview", "full", "reference"]
MODES: tuple[Mode, ...] = ("preview", "full", "reference")


class Contestant(Protocol):
    """A codec at its qualities. Images are `(H, W, 3)` uint8, decoded to the same shape."""

    @property
    def name(self) -> str: ...
    @property
    def qualities(self) -> Sequence[int]: ...
    def compress(self, image: Image, quality: int) -> bytes: ...
    def decompress(self, data: bytes) -> Image: ...


class LearnedContestant:
    """A codec of this library in one decoding mode, the tagger included in compression.

    No `qualities` stand for all that the capsule has. Raises ValueError for one that it has not, CapsuleError where the
    capsule cannot be loaded.
    """

    def __init__(self, capsule: str, qualities: Sequence[int], mode: Mode, device: str = "cpu") -> None:
        import difficmh

        self.name = f"{capsule.rstrip('/').rpartition('/')[2]} {mode}"
        self._codec = difficmh.load(capsule, device)
        known = self._codec.qualities
        if unknown := [quality for quality in qualities if quality not in known]:
            raise ValueError(f"{capsule} has qualities {known[0]} to {known[-1]}, not {unknown[0]}")
        self.qualities = tuple(qualities or known)
        self._mode = mode

    def compress(self, image: Image, quality: int) -> bytes:
        return self._codec.compress([image], quality=quality)[0]

    def decompress(self, data: bytes) -> Image:
        tensor = self._codec.decompress([data], mode=self._mode)[0]
        pixels: Image = (tensor.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        return np.ascontiguousarray(pixels)


def load_contestants(texts: Sequence[str], device: str = "cpu") -> list[Contestant]:
    """Raises ValueError for a description that makes no sense, or two of one name."""
    contestants = [load_contestant(text, device) for text in texts]
    names = [contestant.name for contestant in contestants]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(repeated))} is there more than once; list its qualities behind one @")
    return contestants


def load_contestant(text: str, device: str = "cpu") -> Contestant:
    """A codec from its description (see the module's text); raises ValueError for one that makes no sense."""
    family, separator, rest = text.partition(":")
    if separator and family == "difficmh":
        before, _, mode = rest.rpartition(":")
        if mode not in MODES:
            before, mode = rest, "full"
        name, qualities = name_and_qualities(before)
        return LearnedContestant(name, qualities, next(known for known in MODES if known == mode), device)
    if separator and family == "compressai":
        from difficmh.evaluation.compressai_models import load_compressai

        return load_compressai(rest, device)
    name, qualities = name_and_qualities(text)
    if name not in BASELINES:
        known = ", ".join(BASELINES)
        raise ValueError(f"{text!r} is neither difficmh:CAPSULE nor compressai:ARCHITECTURE=FILE nor one of {known}")
    return load_baseline(name, qualities)


def name_and_qualities(text: str) -> tuple[str, tuple[int, ...]]:
    """`name@1-3,6` to name and (1, 2, 3, 6); no qualities where none are given. Raises ValueError for other lists."""
    name, _, listed = text.partition("@")
    qualities: list[int] = []
    for part in listed.split(",") if listed else ():
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if found is None:
            raise ValueError(f"{listed!r} in {text!r} is no list of qualities such as 1-6 or 10,30,50")
        qualities += range(int(found[1]), int(found[2] or found[1]) + 1)
    return name, tuple(dict.fromkeys(qualities))
