"""Which pictures a device takes together: those of one kind on a GPU, in batches; a CPU takes one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

GPU_BATCH, GPU_BATCH_PIXELS = 8, 1 << 23
"""Images of one kind that a GPU takes at once, and their pixels in all; a larger image goes alone."""

Kind = tuple[int, int, *tuple[float | None, ...]]
"""Height, width, and whatever else must be the same of pictures that are processed together."""

Result = TypeVar("Result")


def in_groups(kinds: Sequence[Kind], device: torch.device, work: Callable[[list[int]], list[Result]]) -> list[Result]:
    """The results of `work`, which takes the positions of a group, for all positions in order."""
    found: dict[int, Result] = {}
    for group in groups(kinds, device):
        found.update(zip(group, work(group), strict=True))
    return [found[position] for position in range(len(kinds))]


def groups(kinds: Sequence[Kind], device: torch.device) -> Iterator[list[int]]:
    """Positions to process together, all of one kind."""
    by_kind: dict[Kind, list[int]] = {}
    for position, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(position)
    for (height, width, *_), positions in by_kind.items():
        fitting = GPU_BATCH_PIXELS // (height * width)
        limit = max(1, min(GPU_BATCH, fitting)) if device.type == "cuda" else 1
        for start in range(0, len(positions), limit):
            yield positions[start : start + limit]
