"""Codecs and measurements with known results, for tests of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difficmh.evaluation.graders import Image
from difficmh.evaluation.measure import Measurement


@dataclass(frozen=True)
class Rounding:
    """Keeps the upper bits of each sample: exact sizes, known errors."""

    name: str = "rounding"
    qualities: tuple[int, ...] = (2, 4)

    def compress(self, image: Image, quality: int) -> bytes:
        height, width, _ = image.shape
        data = bytes([height, width]) + (image >> (8 - quality) << (8 - quality)).tobytes()
        return data + bytes(quality)

    def decompress(self, data: bytes) -> Image:
        height, width = data[:2]
        return np.frombuffer(data[2 : 2 + 3 * height * width], np.uint8).reshape(height, width, 3)


def measurement(codec: str, quality: int, image: str, rate: float, **evidence: object) -> Measurement:
    """Of a picture of 8 x 8, with half a second for each direction."""
    return Measurement(codec, quality, image, 8, 8, round(8 * rate), rate, 0.5, 0.5, evidence)


def synthetic(codec: str, saving: float) -> list[Measurement]:
    """Two pictures at five qualities, 3 dB apart for each doubling of the rate, at `saving` times the bits."""
    return [
        measurement(codec, index, image, rate * saving * factor, psnr=20.0 + 3 * index, ms_ssim_db=8.0 + index)
        for index, rate in enumerate((0.05, 0.1, 0.2, 0.4, 0.8), 1)
        for image, factor in (("a", 0.5), ("b", 1.5))
    ]
