"""Codecs side by side on the same images: real bytes, measured quality, seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from difficmh.baselines import BASELINES, Baseline, load_baseline
from difficmh.metrics import bits_per_pixel, ms_ssim_db, psnr, ssimulacra2

Image = NDArray[np.uint8]
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


@dataclass(frozen=True)
class Measurement:
    """One image, one codec, one quality. `ssimulacra2` is None where it was not asked for."""

    codec: str
    quality: int
    image: str
    height: int
    width: int
    stored_bytes: int
    bits_per_pixel: float
    psnr: float
    ms_ssim_db: float
    ssimulacra2: float | None
    compress_seconds: float
    decompress_seconds: float


class LearnedContestant:
    """A codec of this library in one decoding mode, the tagger included in compression."""

    def __init__(self, capsule: str, qualities: Sequence[int], mode: Mode, device: str = "cpu") -> None:
        import difficmh

        self.name = f"{capsule.rstrip('/').rpartition('/')[2]} {mode}"
        self.qualities = qualities
        self._codec = difficmh.load(capsule, device)
        self._mode = mode

    def compress(self, image: Image, quality: int) -> bytes:
        return self._codec.compress([image], quality=quality)[0]

    def decompress(self, data: bytes) -> Image:
        tensor = self._codec.decompress([data], mode=self._mode)[0]
        pixels: Image = (tensor.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        return pixels


def parse_contestant(text: str) -> Callable[[str], Contestant]:
    """A codec from its description, made when called with a device.

        webp   jpeg@10,30,50          a baseline at its usual qualities, or at these
        difficmh:lite@1-6:preview     a capsule (built in, or a directory), qualities, mode (default: 1-6, full)

    Raises ValueError for a description that makes no sense.
    """
    family, separator, rest = text.partition(":")
    if separator and family == "difficmh":
        before, _, mode = rest.rpartition(":")
        if mode not in MODES:
            before, mode = rest, "full"
        name, qualities = _name_and_qualities(before)
        chosen = next(known for known in MODES if known == mode)
        return lambda device: LearnedContestant(name, qualities or range(1, 7), chosen, device)
    name, qualities = _name_and_qualities(text)
    if name not in BASELINES:
        raise ValueError(f"{text!r} is neither difficmh:CAPSULE nor one of {', '.join(BASELINES)}")
    return lambda device: _at_qualities(load_baseline(name), qualities)


def measure(
    contestant: Contestant, images: Iterable[tuple[str, Image]], with_ssimulacra2: bool = False
) -> Iterator[Measurement]:
    """Every named image at every quality. Seconds are wall clock, of this process alone."""
    for name, image in images:
        for quality in contestant.qualities:
            start = time.perf_counter()
            data = contestant.compress(image, quality)
            middle = time.perf_counter()
            decoded = contestant.decompress(data)
            end = time.perf_counter()
            height, width, _ = image.shape
            yield Measurement(
                codec=contestant.name,
                quality=quality,
                image=name,
                height=height,
                width=width,
                stored_bytes=len(data),
                bits_per_pixel=bits_per_pixel(len(data), height, width),
                psnr=psnr(image, decoded),
                ms_ssim_db=ms_ssim_db(image, decoded),
                ssimulacra2=ssimulacra2(image, decoded) if with_ssimulacra2 else None,
                compress_seconds=middle - start,
                decompress_seconds=end - middle,
            )


def _at_qualities(baseline: Baseline, qualities: tuple[int, ...]) -> Baseline:
    return Baseline(baseline.name, qualities or baseline.qualities, baseline.settings)


def _name_and_qualities(text: str) -> tuple[str, tuple[int, ...]]:
    """`name@1-3,6` to name and (1, 2, 3, 6); no qualities where none are given."""
    name, _, listed = text.partition("@")
    qualities: list[int] = []
    for part in listed.split(",") if listed else ():
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise ValueError(f"{listed!r} in {text!r} is no list of qualities such as 1-6 or 10,30,50")
        qualities += range(int(found[1]), int(found[2] or found[1]) + 1)
    return name, tuple(qualities)
