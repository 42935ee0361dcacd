"""Training images, read once into memory and cropped on the device.

All pixels lie in one flat uint8 tensor, on the training device; a batch of random crops is one gather. Images of every
size mix freely, and nothing but indices is made per step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difficmh.errors import ImageError
from difficmh.images import decode_image
from difficmh.training.files import PictureFile, picture_files
from difficmh.unreadable import left_out

CROP = 192
"""Pixels a side of what is trained on: a multiple of 64, and more than the 160 that MS-SSIM needs."""

SMALLEST_SIDE = 16
"""Pixels; smaller pictures say nothing about photographs, enlarged to a crop."""

DECODING_THREADS = 2

ENLARGED_SHARE = 0.35
"""Of the crops; half of them are enlarged by 2, the others by 4/3."""


@dataclass(frozen=True)
class TrainingSample:
    """One image as the codec reads it, `(H, W, 3)` uint8 sRGB, and the JSON object beside it (or an empty one)."""

    key: str
    pixels: NDArray[np.uint8]
    metadata: dict[str, Any]


def read_samples(paths: Iterable[Path]) -> list[TrainingSample]:
    """All pictures of tar shards or folders, decoded, in order; what was passed over as none is counted and printed.

    So are files whose names call them pictures and that cannot be read. Raises FileNotFoundError where there are no
    pictures, ValueError for a folder with shards in it or a damaged shard, ImageError where no picture can be read.
    """
    paths, passed_over = tuple(paths), Counter[str]()
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        decoded = list(pool.map(_decode, picture_files(paths, passed_over)))
    samples = [one for one in decoded if isinstance(one, TrainingSample)]
    unreadable = [one for one in decoded if not isinstance(one, TrainingSample)]
    if passed_over:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in passed_over.most_common())
        print(f"{passed_over.total()} files passed over as no images: {kinds}", flush=True)
    if unreadable and not samples:
        raise ImageError(f"no picture to train on: {left_out(unreadable)}")
    if unreadable:
        print(left_out(unreadable), flush=True)
    if not samples:
        raise FileNotFoundError(f"no images in {', '.join(str(path) for path in paths)}")
    return samples


def _decode(file: PictureFile) -> TrainingSample | tuple[str, str]:
    """The picture, or its key and why it cannot be read."""
    try:
        return TrainingSample(file.key, decode_image(file.data), file.metadata)
    except ImageError as error:
        return file.key, str(error)


class CropSource:
    """Random square crops from images, of `SMALLEST_SIDE` or more, held in one flat tensor on `device`.

    A share of the crops (`ENLARGED_SHARE`) is cut smaller and enlarged: reduced training pictures are busier than
    camera frames of full size, and this fills in their smoother statistics.
    """

    def __init__(self, images: Iterable[NDArray[np.uint8]], device: torch.device | str) -> None:
        arrays = list(images)
        sizes = np.array([image.shape[:2] for image in arrays], np.int64)
        self.pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in arrays])).to(device)
        self.heights, self.widths = (torch.from_numpy(sizes[:, axis].copy()) for axis in (0, 1))
        self.starts = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * 3)[:-1]]))
        # Larger pictures hold more independent crops; the square root keeps them from crowding out the small ones.
        self.weights = torch.from_numpy(np.sqrt(sizes.prod(axis=1)).astype(np.float64))
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, size: int, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`(size, 3, crop, crop)` float32 in [0, 1] and the `(size,)` int64 indices of the images they come from.

        Every place of the batch is drawn alike, so that a part of it is a sample of the whole.
        """
        chosen = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        scales = self._scales(size, crop, chosen, generator)
        images = torch.empty(size, 3, crop, crop, device=self.device)
        for scale in scales.unique().tolist():
            here = scales == scale
            images[here.to(self.device)] = self._gather(chosen[here], crop, scale, generator)
        return images, chosen

    def _scales(self, size: int, crop: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Enlargement of each crop: mostly 1, some of {4/3, 2}, and always enough for the image's shorter side."""
        draws = torch.rand(size, generator=generator)
        scales = torch.ones(size)
        scales[draws < ENLARGED_SHARE] = 4 / 3
        scales[draws < ENLARGED_SHARE / 2] = 2.0
        shorter = torch.minimum(self.heights, self.widths)[chosen]
        return torch.where(shorter < crop, torch.maximum(scales, crop / shorter), scales)

    def _gather(self, chosen: Tensor, crop: int, scale: float, generator: torch.Generator) -> Tensor:
        side = min(round(crop / scale), int(torch.minimum(self.heights, self.widths)[chosen].min()))
        top = (torch.rand(len(chosen), generator=generator) * (self.heights[chosen] - side + 1)).long()
        left = (torch.rand(len(chosen), generator=generator) * (self.widths[chosen] - side + 1)).long()
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        places = torch.stack((top, left, flip.long(), self.widths[chosen], self.starts[chosen])).to(self.device)
        top, left, flipped, width, start = places[:, :, None, None]
        steps = torch.arange(side, device=self.device)
        columns = left + torch.where(flipped > 0, steps.flip(0), steps)
        flat = start + 3 * ((top + steps[:, None]) * width + columns)
        channels = torch.arange(3, device=self.device)[:, None, None]
        values = self.pixels[flat[:, None] + channels].float() / 255
        if side == crop:
            return values
        return F.interpolate(values, size=(crop, crop), mode="bicubic", align_corners=False, antialias=False).clamp(
            0, 1
        )


@dataclass(frozen=True)
class TrainingData:
    """Crops to train on, `(N, V)` uint8 tags of their images, and `(K, 3, H, W)` images in [0, 1] held back."""

    source: CropSource
    tags: Tensor
    validation: Tensor
