"""Images to batches of like size, deterministically: the same sequence of images makes the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

SIZE_STEP = 64
"""Images whose sides round up to the same multiples go together: that is what a codec pads them to."""


@dataclass(frozen=True)
class BatchLimits:
    """`images` and `pixels` of one batch, and `waiting` pixels over all unfinished batches.

    An image above `pixels` is a batch of its own.
    """

    images: int
    pixels: int
    waiting: int


class SizeBatches(Generic[Item]):
    """Collects items by image size. A full group leaves as a batch; the oldest leaves early when too much waits."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._groups: dict[tuple[int, int], list[Item]] = {}
        self._pixels: dict[tuple[int, int], int] = {}

    def add(self, item: Item, height: int, width: int) -> Iterator[list[Item]]:
        """Takes an item; yields the batches that are due because of it."""
        group = (-(-height // SIZE_STEP), -(-width // SIZE_STEP))
        area = height * width
        if group in self._groups and self._pixels[group] + area > self._limits.pixels:
            yield self._leave(group)
        self._groups.setdefault(group, []).append(item)
        self._pixels[group] = self._pixels.get(group, 0) + area
        if len(self._groups[group]) >= self._limits.images or self._pixels[group] >= self._limits.pixels:
            yield self._leave(group)
        while sum(self._pixels.values()) > self._limits.waiting:
            yield self._leave(next(iter(self._groups)))

    def drain(self) -> Iterator[list[Item]]:
        """The unfinished batches, oldest first."""
        while self._groups:
            yield self._leave(next(iter(self._groups)))

    def _leave(self, group: tuple[int, int]) -> list[Item]:
        del self._pixels[group]
        return self._groups.pop(group)
