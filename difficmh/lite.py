"""The networks of `lite` as the codec sees them (`networks.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from difficmh import sampler
from difficmh.config import DEFAULT_QUALITY, MAX_EFFORT
from difficmh.limits import MOST_STEPS
from difficmh.model import CodecModel
from difficmh.networks import Conditions, GenerativeMode, Noise, Sampling
from difficmh.refinement import Window, refine
from difficmh.symbols import EntropyNetworks, Latents
from difficmh.tiling import Y_STRIDE, Tile


class LiteNetworks:
    """`CodecModel` behind the seam; `names` are the tags of the vocabulary in order."""

    default_quality = DEFAULT_QUALITY
    samplers: Mapping[str, int] = MOST_STEPS["lite"]
    sampling: Mapping[GenerativeMode, Sampling] = {"full": Sampling("ddim", 1), "reference": Sampling("ddim", 50)}
    guidance: float | None = None
    max_effort = MAX_EFFORT

    def __init__(self, model: CodecModel, names: Sequence[str]) -> None:
        self.model = model
        self._positions = {name: position for position, name in enumerate(names)}

    @property
    def device(self) -> torch.device:
        return self.model.g_a.log_gain.device

    @property
    def qualities(self) -> range:
        return range(1, self.model.config.qualities + 1)

    @property
    def tile(self) -> int:
        return self.model.config.tile

    @property
    def entropy(self) -> EntropyNetworks:
        return self.model.entropy

    def analyze(self, images: Tensor, tile: Tile, quality_index: Tensor, effort: int = 0) -> tuple[Tensor, Tensor]:
        y: Tensor = self.model.g_a(images, quality_index)
        core: Tensor = tile.crop(y, Y_STRIDE)
        z: Tensor = self.model.h_a(core)
        if effort:
            with torch.inference_mode(False):  # whose tensors know no gradients, unless they are copied
                window = Window(*(x.clone() for x in (images, y, z, quality_index)))
                core = refine(self.model, window, tile, effort)
        return core, z

    def preview(self, latents: Latents, quality_index: Tensor) -> Tensor:
        return self.model.preview(_channels_last(latents.y_hat), quality_index)

    def guide(self, latents: Latents, quality_index: Tensor) -> Tensor:
        return self.model.guide(_channels_last(latents.y_hat), quality_index)

    def denoise(self, guide: Tensor, noise: Noise, conditions: Conditions) -> Tensor:
        tags = self._present(conditions.tags)

        def estimate(x_t: Tensor, timestep: int) -> Tensor:
            timesteps = torch.full((len(guide),), timestep, device=self.device)
            return self.model.denoiser.clean_estimate(x_t, timesteps, tags, guide)

        return sampler.sample(estimate, noise.start(), conditions.sampling.steps)

    def draw(self, latent: Tensor) -> Tensor:
        return self.model.draw(latent)

    def _present(self, tags: Sequence[tuple[str, ...]]) -> Tensor:
        """`(B, vocabulary)` float32, 1 for each tag that an image has."""
        shape = (len(tags), len(self._positions))
        present = torch.zeros(shape, dtype=torch.float32, device="cpu")  # filled there: one copy to a GPU, not many
        for row, names in zip(present, tags, strict=True):
            row[[self._positions[name] for name in names]] = 1
        return present.to(self.device)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
