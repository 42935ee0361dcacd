"""The seam between the codec and a family of networks: what `codec.py` asks, whichever family answers.

    lite    `lite.py`, over the networks of `model.py`
    sd21    `sd21/networks.py`, the paper's model

Coding, bitstream, tags, tiling and noise are the codec's and the same for all. Images and latents are float32 batches
`(B, …)` on the networks' device; what belongs to a core or a window is cut as `tiling.py` says. Qualities count from 1,
quality indexes from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from difficmh.limits import Mode, check_mode
from difficmh.symbols import EntropyNetworks, Latents
from difficmh.tiling import Tile

GenerativeMode = Literal["full", "reference"]


@dataclass(frozen=True)
class Sampling:
    """A sampler, one of `Networks.samplers`, and how many times it asks the denoiser."""

    sampler: str
    steps: int


@dataclass(frozen=True)
class Conditions:
    """What steers the denoiser beside the guide latents of `B` images: the tags of each, and how to sample.

    `guidance` is the scale of classifier-free guidance, None where the family has none.
    """

    tags: Sequence[tuple[str, ...]]
    sampling: Sampling
    guidance: float | None = None


class Noise(Protocol):
    """Standard normal noise for the latents of some images, on the networks' device: `noise.NoiseField` makes it of
    their streams."""

    def start(self) -> Tensor: ...

    def at(self, timestep: int) -> Tensor: ...


class Networks(Protocol):
    """A family's networks with weights, on one device."""

    @property
    def device(self) -> torch.device: ...

    @property
    def qualities(self) -> range:
        """Valid qualities, from fewest bits to most."""
        ...

    @property
    def default_quality(self) -> int: ...

    @property
    def tile(self) -> int:
        """What is coded at once, in pixels a side (`tiling.cores`): part of what a stream means."""
        ...

    @property
    def entropy(self) -> EntropyNetworks: ...

    @property
    def samplers(self) -> Mapping[str, int]:
        """The most steps of each sampler."""
        ...

    @property
    def sampling(self) -> Mapping[GenerativeMode, Sampling]: ...

    @property
    def guidance(self) -> float | None:
        """The scale of streams that name none; None where the family has no guidance."""
        ...

    @property
    def max_effort(self) -> int:
        """The most gradient steps that `analyze` can spend on an image; 0 where it cannot."""
        ...

    def analyze(self, images: Tensor, tile: Tile, quality_index: Tensor, effort: int = 0) -> tuple[Tensor, Tensor]:
        """What is coded of a tile's core, y `(B, M, h, w)` and z `(B, N, h/4, w/4)`, one y for 16 x 16 pixels.

        `images` `(B, 3, H, W)` in [0, 1] is the tile's window, `quality_index` `(B,)` int64 counts from 0. `effort`
        is a number of gradient steps of y towards fewer bits and less distortion (`refinement.py`).
        """
        ...

    def preview(self, latents: Latents, quality_index: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` without denoising; they may leave [0, 1] slightly."""
        ...

    def guide(self, latents: Latents, quality_index: Tensor) -> Tensor:
        """Guide latents `(B, C, H/8, W/8)`."""
        ...

    def denoise(self, guide: Tensor, noise: Noise, conditions: Conditions) -> Tensor:
        """Latents like `guide`, drawn from `noise`. Raises ValueError for steps that the sampler has not."""
        ...

    def draw(self, latent: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` of latents; they may leave [0, 1] slightly."""
        ...


def choose_sampling(networks: Networks, mode: Mode, steps: int | None, sampler: str | None) -> Sampling | None:
    """How networks denoise in a mode, unless `steps` or `sampler` say otherwise; None is not at all.

    Raises ValueError for a mode, sampler or number of steps that there is not, and for `preview` with either.
    """
    check_mode(mode, steps, sampler)
    if sampler is not None and sampler not in networks.samplers:
        raise ValueError(f"sampler {sampler!r} is not one of this model's: {', '.join(networks.samplers)}")
    if mode == "preview":
        return None
    usual = networks.sampling[mode]
    chosen = Sampling(sampler or usual.sampler, usual.steps if steps is None else steps)
    most = networks.samplers[chosen.sampler]
    if not 1 <= chosen.steps <= most:
        raise ValueError(f"steps of {chosen.sampler} must be in 1..{most}, not {chosen.steps}")
    return chosen
