"""A small picture of a demo run for documents: original, preview and full side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont, ImageOps

from demo.page import Picture
from pipeline.protocols import Image

CELL = (400, 266)
CAPTION = 28
GAP = 6
SHOWN = ("chelsea", "coffee")
"""Photographs in the public domain, so that the picture needs no further credit."""


def write_strip(path: Path, pictures: Sequence[Picture]) -> None:
    """A JPEG with a row per photograph of `SHOWN`. Raises ValueError where none of them is among `pictures`."""
    rows = [picture for picture in pictures if picture.key in SHOWN]
    if not rows:
        raise ValueError(f"none of {', '.join(SHOWN)} was compressed")
    width, height = 3 * CELL[0] + 2 * GAP, len(rows) * (CELL[1] + CAPTION)
    sheet = PillowImage.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for row, picture in enumerate(rows):
        top = row * (CELL[1] + CAPTION)
        for column, (image, caption) in enumerate(_cells(picture)):
            left = column * (CELL[0] + GAP)
            sheet.paste(ImageOps.fit(PillowImage.fromarray(image), CELL, PillowImage.Resampling.LANCZOS), (left, top))
            draw.text((left + 4, top + CELL[1] + 4), caption, "black", font)
    sheet.save(path, "JPEG", quality=88)


def _cells(picture: Picture) -> list[tuple[Image, str]]:
    rate = f"{picture.bits_per_pixel:.3f} bits per pixel"
    return [
        (picture.original, f"original, {picture.original_bytes / 1000:,.0f} kB {picture.original_format}"),
        (picture.preview, f"preview, {picture.stored_bytes / 1000:,.1f} kB, {rate}"),
        (picture.full, "full, of the same bytes: a reconstruction"),
    ]
