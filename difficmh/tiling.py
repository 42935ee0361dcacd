"""Where the tiles of an image lie: integer geometry only, part of the format.

Networks work on sizes that are multiples of 64 pixels, so images are padded at the right and at the bottom by repeating
the edge. Small images are one tile. Large ones are cut into *cores*, which partition the padded image and are coded one
after the other; networks see each core's *window*, the core grown by a margin, so that no seams appear.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATENT_STRIDE, Y_STRIDE, Z_STRIDE = 8, 16, 64
"""Pixels a side of one position of a latent of the diffusion, of y and of z; the same for every family."""

ALIGNMENT = Z_STRIDE
"""Pixels: every edge of a padded image, core or window is a multiple of this."""


@dataclass(frozen=True)
class Rectangle:
    """Rows `top … top + height - 1` and columns `left … left + width - 1`, in pixels of the padded image."""

    top: int
    left: int
    height: int
    width: int

    def slices(self, stride: int = 1) -> tuple[slice, slice]:
        """Rows and columns in an array with one cell per `stride` pixels; `stride` divides 64."""
        if stride < 1 or ALIGNMENT % stride:
            raise ValueError(f"stride {stride} does not divide {ALIGNMENT}")
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top // stride, bottom // stride), slice(self.left // stride, right // stride)

    def grown(self, margin: int, height: int, width: int) -> Rectangle:
        """This rectangle with `margin` more pixels on each side, within an image of `height` × `width`."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom = min(height, self.top + self.height + margin)
        right = min(width, self.left + self.width + margin)
        return Rectangle(top, left, bottom - top, right - left)


@dataclass(frozen=True)
class Tile:
    """One part of an image: the core that it codes and the window that the networks see."""

    core: Rectangle
    window: Rectangle

    def crop(self, array: Any, stride: int = 1) -> Any:
        """The core's part of an array `(…, rows, columns)` that covers the window, one cell per `stride` pixels."""
        inner = Rectangle(
            self.core.top - self.window.top, self.core.left - self.window.left, self.core.height, self.core.width
        )
        rows, columns = inner.slices(stride)
        return array[..., rows, columns]


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The next multiples of 64. Raises ValueError for a size below 1."""
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels has no pixels")
    return _aligned_up(height), _aligned_up(width)


def pad(image: NDArray[Any]) -> NDArray[Any]:
    """`(H, W, …)` to the padded size, repeating the last row and the last column."""
    height, width = padded_size(*image.shape[:2])
    missing = [(0, height - image.shape[0]), (0, width - image.shape[1])]
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="edge")


def cores(height: int, width: int, tile: int) -> list[Rectangle]:
    """The cores of an image of `height` × `width` pixels, row by row.

    None has more than `tile` × `tile` pixels; an image whose padded size has no more is a single core. `tile` is a
    multiple of 64. Cores along an edge differ by 64 pixels at most. Raises ValueError for other numbers.
    """
    if tile < ALIGNMENT or tile % ALIGNMENT:
        raise ValueError(f"tile sides are positive multiples of {ALIGNMENT}, not {tile}")
    height, width = padded_size(height, width)
    # A narrow image is cut into long tiles, so that their number follows its area.
    rows = _cut(height, _aligned_down(tile * tile // min(width, tile)))
    columns = _cut(width, _aligned_down(tile * tile // min(height, tile)))
    return [Rectangle(top, left, down, across) for top, down in rows for left, across in columns]


def tiles(height: int, width: int, tile: int, margin: int) -> list[Tile]:
    """The cores of an image, each in its window: with `margin` more pixels on each side, as far as the image goes.

    Raises ValueError as `cores` does, and for a margin that is no multiple of 64, or negative.
    """
    if margin < 0 or margin % ALIGNMENT:
        raise ValueError(f"margins are multiples of {ALIGNMENT}, not {margin}")
    rows, columns = padded_size(height, width)
    return [Tile(core, core.grown(margin, rows, columns)) for core in cores(height, width, tile)]


def _aligned_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _aligned_down(size: int) -> int:
    return size // ALIGNMENT * ALIGNMENT


def _cut(size: int, limit: int) -> list[tuple[int, int]]:
    """`size` in equal parts of at most `limit`, as (start, length) in multiples of 64; the longer parts come first."""
    units = size // ALIGNMENT
    parts = -(-size // limit)
    short, longer = divmod(units, parts)
    lengths = [(short + (part < longer)) * ALIGNMENT for part in range(parts)]
    return list(zip(accumulate(lengths, initial=0), lengths, strict=False))
