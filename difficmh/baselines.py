"""Ordinary image codecs to compare with: pixels to the bytes of a file, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from PIL import Image, features

from difficmh.images import Pixels


@dataclass(frozen=True)
class PillowCodec:
    """One codec of Pillow at the settings of the comparison; `qualities` span about 0.05 to 0.8 bits per pixel."""

    name: str
    qualities: tuple[int, ...]
    settings: Mapping[str, int | bool | str] = field(default_factory=dict)

    def compress(self, image: Pixels, quality: int) -> bytes:
        """The whole file for an `(H, W, 3)` uint8 image, without metadata."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, self.name, quality=quality, **self.settings)
        return file.getvalue()

    @staticmethod
    def decompress(data: bytes) -> Pixels:
        """`(H, W, 3)` uint8."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class JpegXl:
    """JPEG XL by libjxl through the package `pyjpegxl` (extra `jpegxl`), as Pillow has none."""

    name: str = "jpegxl"
    qualities: tuple[int, ...] = (10, 17, 30, 55, 75)

    def compress(self, image: Pixels, quality: int) -> bytes:
        """The whole file for an `(H, W, 3)` uint8 image, without metadata; quality as `cjxl` counts it."""
        import pyjpegxl

        data: bytes = pyjpegxl.encode_from_numpy(np.ascontiguousarray(image), quality=jxl_distance(quality))
        return data

    @staticmethod
    def decompress(data: bytes) -> Pixels:
        """`(H, W, 3)` uint8."""
        import pyjpegxl

        _, pixels = pyjpegxl.decode_to_numpy(data)
        return np.asarray(pixels)


def jxl_distance(quality: int) -> float:
    """libjxl's Butteraugli distance for a quality from 0 to 100: 1 at 90 is visually lossless, 25 at 0 the largest."""
    if quality >= 30:
        return 0.1 + 0.09 * (100 - quality)
    return quality * quality * 53 / 3000 - quality * 23 / 20 + 25


Baseline: TypeAlias = PillowCodec | JpegXl

BASELINES: Mapping[str, Baseline] = {
    "jpeg": PillowCodec("jpeg", (1, 5, 10, 18, 30, 50, 67), {"optimize": True, "progressive": True}),
    "webp": PillowCodec("webp", (0, 5, 15, 35, 60, 80), {"method": 6}),
    "avif": PillowCodec("avif", (0, 10, 25, 42, 60), {"speed": 6}),
    "jpegxl": JpegXl(),
}
"""JPEG with 4:2:0 and optimised tables, WebP with its slowest search, AVIF at a middle speed (fewer points: slow).

Their lowest are as low as they go: some 0.07 bits per pixel for AVIF, 0.1 for WebP and JPEG. JPEG XL below its quality
10 halves the resolution and pays for it. JPEG's 67 rather than 70 or 75: photographs that were JPEGs of that very
quality come out nearly identical, which is no compression result.
"""


def load_baseline(name: str, qualities: tuple[int, ...] = ()) -> Baseline:
    """A baseline at its own qualities or at these, each from 0 to 100.

    Raises ValueError for a name that is no baseline, one that is not installed, or a quality out of range.
    """
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    _check_installed(name)
    if wrong := [quality for quality in qualities if not 0 <= quality <= 100]:
        raise ValueError(f"{name} has qualities from 0 to 100, not {wrong[0]}")
    return replace(BASELINES[name], qualities=qualities or BASELINES[name].qualities)


def _check_installed(name: str) -> None:
    if name == "jpegxl":
        try:
            import pyjpegxl  # noqa: F401
        except ImportError as error:
            raise ValueError("jpegxl needs a package: pip install pyjpegxl") from error
    elif not features.check("jpg" if name == "jpeg" else name):
        raise ValueError(f"this Pillow was built without {name}")
