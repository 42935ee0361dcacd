"""Pictures in rows, each with a caption below, as one picture for documents."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont, ImageOps

from pipeline.protocols import Image

GAP = 6
"""Pixels between two columns."""


def sheet(rows: Sequence[Sequence[tuple[Image, str]]], cell: tuple[int, int], text: int) -> PillowImage.Image:
    """A row for each of `rows`, whose pictures are cut to the shape of `cell` and resized to it, width before height.

    `text` is the size of the captions; all rows have as many pictures as the first.
    """
    width, height = cell[0] + GAP, cell[1] + caption_height(text)
    made = PillowImage.new("RGB", (len(rows[0]) * width - GAP, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(text)
    for row, cells in enumerate(rows):
        for column, (image, caption) in enumerate(cells):
            left, top = column * width, row * height
            made.paste(ImageOps.fit(PillowImage.fromarray(image), cell, PillowImage.Resampling.LANCZOS), (left, top))
            draw.text((left + 4, top + cell[1] + 4), caption, "black", font)
    return made


def caption_height(text: int) -> int:
    """Pixels below a picture for a caption of this size."""
    return 7 * text // 4
