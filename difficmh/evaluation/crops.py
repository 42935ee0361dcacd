"""Small windows of pictures, kept while measuring, to be shown side by side.

Which window is shown depends on the original alone, so that it favours no codec.
"""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
from PIL import Image as PillowImage

from difficmh.evaluation.graders import Image

SIDE = 192
"""Pixels a side of a window, as far as the picture has them."""

STEP = 32
"""Pixels between two places that are tried."""

QUALITY = 92
"""Of the WebP files."""

Window: TypeAlias = tuple[slice, slice]


def detailed_window(image: Image) -> Window:
    """The square of `SIDE` pixels with most detail in an `(H, W, 3)` picture: the largest sum of gradients.

    Gradients count by their square root: one hard edge is to weigh less than texture, which codecs lose first.
    """
    grey = image.astype(np.float32).mean(axis=2)
    detail = np.zeros(grey.shape, np.float64)
    detail[:-1, :-1] = np.sqrt(np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1])
    sums = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = (min(SIDE, side) for side in grey.shape)
    tops = np.arange(0, grey.shape[0] - height + 1, STEP)
    lefts = np.arange(0, grey.shape[1] - width + 1, STEP)
    found = (
        sums[np.ix_(tops + height, lefts + width)]
        - sums[np.ix_(tops, lefts + width)]
        - sums[np.ix_(tops + height, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    top, left = int(tops[row]), int(lefts[column])
    return slice(top, top + height), slice(left, left + width)


def encoded_crop(image: Image, window: Window) -> bytes:
    """The window as a WebP file of high quality."""
    file = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(image[window])).save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
