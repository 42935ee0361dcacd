"""The noise that a stream defines, for every place of its latent.

It comes from a counter-based generator seeded by the stream, so that the same bytes give the same picture everywhere,
up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class NoiseField:
    """The noise that the streams of `B` images define for one part of their latents: a start, and one for each step.

    `seeds` are below 2^64. Places of the latent have their own numbers as in `seeded_noise`, whose arguments the other
    fields are; each training step has its own too. Noise is made on `device`.
    """

    seeds: Sequence[int]
    channels: int
    rows: slice
    columns: slice
    across: int
    device: torch.device | str = "cpu"

    def start(self) -> Tensor:
        """x_T, `(B, channels, rows, columns)` float32: the noise of `seeded_noise` itself."""
        return self._of(self.seeds)

    def at(self, timestep: int) -> Tensor:
        """The noise that is added on the way down from training step `timestep`, in [0, 1000); shape as `start`."""
        # The seed fills the lower half of the generator's 128-bit key; the start has zeros in the upper half.
        return self._of([seed + ((timestep + 1) << 64) for seed in self.seeds])

    def _of(self, keys: Sequence[int]) -> Tensor:
        return _noise(keys, self.channels, self.rows, self.columns, self.across, self.device)


def seeded_noise(
    seed: int, channels: int, rows: slice, columns: slice, across: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise `(channels, rows, columns)` float32 for part of a latent `across` columns wide.

    Each position of the latent has numbers of its own, whichever part of it is asked for: counters of a Philox
    generator keyed by `seed`, whose raw output NumPy's specification fixes. The Box–Muller transform runs in float64 on
    the device, where platforms agree far below float32's precision. `channels` must be a multiple of 4.
    """
    return _noise([seed], channels, rows, columns, across, device)[0]


def _noise(
    seeds: Sequence[int], channels: int, rows: slice, columns: slice, across: int, device: torch.device | str
) -> Tensor:
    """`seeded_noise` of each seed, `(B, channels, rows, columns)`: one copy to the device, and one transform there."""
    if channels % 4:
        raise ValueError(f"noise comes in groups of 4 channels, not {channels}")
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if width == across:  # whole lines follow each other: one call instead of one for each, a quarter of the time
        runs, length = [rows.start * across], height * across
    else:
        runs, length = [row * across + columns.start for row in range(rows.start, rows.stop)], width
    bits = np.concatenate([_bits(seed, start * channels, length * channels) for seed in seeds for start in runs])
    noise = _normal(torch.from_numpy(bits).to(device)).view(len(seeds), height, width, channels)
    return noise.permute(0, 3, 1, 2)


def _bits(seed: int, start: int, count: int) -> NDArray[np.int32]:
    """`count` integers below 2^24 from place `start` of the sequence of `seed`; both multiples of 4."""
    raw = np.random.Philox(key=seed).advance(start // 4).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.int32)


def _normal(bits: Tensor) -> Tensor:
    """Standard normal values, float32, of as many integers below 2^24: the Box–Muller transform of pairs."""
    uniform = (bits.double() + 0.5) * 2.0**-24
    radius = torch.sqrt(-2 * torch.log(uniform[0::2]))
    angle = 2 * math.pi * uniform[1::2]
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1).view(-1).float()
