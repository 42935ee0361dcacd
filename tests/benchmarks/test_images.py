"""Benchmark pictures are real, of one size, and all different."""

from __future__ import annotations

from benchmarks.images import HEIGHT, WIDTH, benchmark_images
from demo.photographs import PHOTOGRAPHS


def test_pictures_are_of_one_size_and_differ() -> None:
    images = benchmark_images(len(PHOTOGRAPHS) + 2)
    assert {image.shape for image in images} == {(HEIGHT, WIDTH, 3)}
    assert all(image.flags.writeable for image in images)  # torch warns of others
    assert len({image.tobytes() for image in images}) == len(images)
