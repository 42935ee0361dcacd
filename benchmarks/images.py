"""The pictures that benchmarks run on: the demo's photographs, cut to one size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from demo.photographs import PHOTOGRAPHS
from pipeline.protocols import Image

WIDTH, HEIGHT = 768, 512


def benchmark_images(count: int) -> list[Image]:
    """`count` different `(512, 768, 3)` uint8 pictures: each photograph, then its mirror images, then again."""
    return [_cut(index) for index in range(count)]


def _cut(index: int) -> Image:
    repeat, which = divmod(index, len(PHOTOGRAPHS))
    with PillowImage.open(io.BytesIO(PHOTOGRAPHS[which].read())) as file:
        picture = ImageOps.fit(file.convert("RGB"), (WIDTH, HEIGHT), PillowImage.Resampling.LANCZOS)
    if repeat & 1:
        picture = ImageOps.mirror(picture)
    if repeat & 2:
        picture = ImageOps.flip(picture)
    return np.array(picture)
