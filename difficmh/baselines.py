"""Ordinary image codecs to compare with, through Pillow: pixels to the bytes of a file, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features


@dataclass(frozen=True)
class Baseline:
    """One codec at the settings that the comparison uses; `qualities` span about 0.05 to 0.8 bits per pixel."""

    name: str
    qualities: tuple[int, ...]
    settings: Mapping[str, int | bool | str] = field(default_factory=dict)

    def compress(self, image: NDArray[np.uint8], quality: int) -> bytes:
        """The whole file for an `(H, W, 3)` uint8 image, without metadata."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, self.name, quality=quality, **self.settings)
        return file.getvalue()

    @staticmethod
    def decompress(data: bytes) -> NDArray[np.uint8]:
        """`(H, W, 3)` uint8."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


BASELINES = {
    "jpeg": Baseline("jpeg", (5, 10, 18, 30, 50, 67), {"optimize": True, "progressive": True}),
    "webp": Baseline("webp", (0, 5, 15, 35, 60, 80), {"method": 6}),
    "avif": Baseline("avif", (10, 25, 42, 60), {"speed": 6}),
}
"""JPEG with 4:2:0 and optimised tables, WebP with its slowest search, AVIF at a middle speed (fewer points: slow).

WebP cannot go below some 0.1 bits per pixel. JPEG's 67 rather than 70 or 75: photographs that were JPEGs of that very
quality come out nearly identical, which is no compression result.
"""


def load_baseline(name: str) -> Baseline:
    """Raises ValueError for a name that is no baseline, or one that this Pillow was built without."""
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    if not features.check("jpg" if name == "jpeg" else name):
        raise ValueError(f"this Pillow was built without {name}")
    return BASELINES[name]
