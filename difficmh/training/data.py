"""Training images, read once into memory and cropped on the device.

All pixels lie in one flat uint8 tensor, on the training device; a batch of random crops is one gather. Images of every
size mix freely, and nothing but indices is made per step.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
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

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

SMALLEST_SIDE = 16
"""Pixels; smaller pictures say nothing about photographs, enlarged to a crop."""


@dataclass(frozen=True)
class TrainingSample:
    """One image as the codec reads it, `(H, W, 3)` uint8 sRGB, and the JSON beside it (empty where there is none)."""

    key: str
    pixels: NDArray[np.uint8]
    metadata: dict[str, Any]


def read_samples(paths: Iterable[Path], threads: int = 2) -> list[TrainingSample]:
    """All images of tar shards or folders, decoded, in order.

    Raises FileNotFoundError where there are none, ValueError for a folder with shards in it, and ImageError, with its
    key, for a file that is no picture.
    """
    with ThreadPoolExecutor(threads) as pool:
        samples = list(pool.map(lambda member: _decode(*member), _members(paths)))
    if not samples:
        raise FileNotFoundError(f"no images in {', '.join(str(path) for path in paths)}")
    return samples


def _members(paths: Iterable[Path]) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    for path in paths:
        if path.is_dir():
            files = sorted(path.rglob("*"))
            if shards := [file for file in files if file.suffix == ".tar"]:
                raise ValueError(f"{path} is a folder with shards, such as {shards[0]}: name the shards themselves")
            for file in files:
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    yield str(file.relative_to(path)), file.read_bytes(), {}
        else:
            yield from _tar_members(path)


def _tar_members(path: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    images: dict[str, bytes] = {}
    metadata: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stem, _, suffix = member.name.rpartition(".")
            file = tar.extractfile(member)
            if file is None:
                continue
            if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                images[stem] = file.read()
            elif suffix == "json":
                metadata[stem] = json.load(file)
    for key, data in images.items():
        yield key, data, metadata.get(key, {})


def _decode(key: str, data: bytes, metadata: dict[str, Any]) -> TrainingSample:
    try:
        return TrainingSample(key, decode_image(data), metadata)
    except ImageError as error:
        raise ImageError(f"{key}: {error}") from error


class CropSource:
    """Random square crops from images, of `SMALLEST_SIDE` or more, held in one flat tensor on `device`.

    A share of the crops (`enlarge_share`) is cut smaller and enlarged by 1 to 2 times: reduced training pictures are
    busier than camera frames of full size, and this fills in their smoother statistics.
    """

    def __init__(
        self, images: Iterable[NDArray[np.uint8]], device: torch.device | str, enlarge_share: float = 0.35
    ) -> None:
        arrays = list(images)
        sizes = np.array([image.shape[:2] for image in arrays], np.int64)
        self.pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in arrays])).to(device)
        self.heights, self.widths = (torch.from_numpy(sizes[:, axis].copy()) for axis in (0, 1))
        self.starts = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * 3)[:-1]]))
        # Larger pictures hold more independent crops; the square root keeps them from crowding out the small ones.
        self.weights = torch.from_numpy(np.sqrt(sizes.prod(axis=1)).astype(np.float64))
        self.device = torch.device(device)
        self.enlarge_share = enlarge_share

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, size: int, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`(size, 3, crop, crop)` float32 in [0, 1] and the `(size,)` int64 indices of the images they come from."""
        chosen = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        scales = self._scales(size, crop, chosen, generator)
        crops = [
            self._gather(chosen[scales == scale], crop, float(scale), generator) for scale in scales.unique().tolist()
        ]
        order = torch.cat([torch.nonzero(scales == scale).flatten() for scale in scales.unique().tolist()])
        return torch.cat(crops), chosen[order]

    def _scales(self, size: int, crop: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Enlargement of each crop: mostly 1, some of {4/3, 2}, and always enough for the image's shorter side."""
        draws = torch.rand(size, generator=generator)
        scales = torch.ones(size)
        scales[draws < self.enlarge_share] = 4 / 3
        scales[draws < self.enlarge_share / 2] = 2.0
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
