"""A small picture of a demo run for documents: original, preview and full side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demo.page import Picture
from demo.sheet import sheet
from pipeline.protocols import Image

CELL = (400, 266)
CAPTION = 16
SHOWN = ("chelsea", "coffee")
"""Photographs in the public domain, so that the picture needs no further credit."""


def write_strip(path: Path, pictures: Sequence[Picture]) -> None:
    """A JPEG with a row per photograph of `SHOWN`. Raises ValueError where none of them is among `pictures`."""
    rows = [picture for picture in pictures if picture.key in SHOWN]
    if not rows:
        raise ValueError(f"none of {', '.join(SHOWN)} was compressed")
    sheet([_cells(picture) for picture in rows], CELL, CAPTION).save(path, "JPEG", quality=88)


def _cells(picture: Picture) -> list[tuple[Image, str]]:
    rate = f"{picture.bits_per_pixel:.3f} bits per pixel"
    return [
        (picture.original, f"original, {picture.original_bytes / 1000:,.0f} kB {picture.original_format}"),
        (picture.preview, f"preview, {picture.stored_bytes / 1000:,.1f} kB, {rate}"),
        (picture.full, "full, of the same bytes: a reconstruction"),
    ]
