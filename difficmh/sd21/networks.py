"""The networks of the paper's model as the codec sees them (`difficmh/networks.py`).

    image ──VAE──► reference latent ─┐
      └─────────────────────────────┴─► LFGCM ─► y, z
    y, z ─► LFGCM ─► guide latent ─► VAE ─► preview
                          └─► UNet and control module, with the tags' text ─► latent ─► VAE ─► image

The diffusion part, most of the weights, is loaded when it is first needed, which is never for compression and previews.
It may run in half precision. LFGCM and VAE stay in float32: one decides symbols, and the other's activations outgrow
float16. No call changes anything but the text's cache, so threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from difficmh.networks import Conditions, GenerativeMode, Noise, Sampling
from difficmh.sd21.config import Sd21Config
from difficmh.sd21.denoiser import Conditioning, Denoiser, noise_model
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.samplers import MOST_STEPS, SamplerName, draw
from difficmh.sd21.vae import LatentAutoencoder
from difficmh.symbols import EntropyNetworks, Latents
from difficmh.taggers.ram_tags import TagList
from difficmh.tiling import LATENT_STRIDE, Y_STRIDE, Tile


class TextEmbedder(Protocol):
    """Prompts to embeddings `(B, L, D)`, as `TextConditioner` does it."""

    def embed(self, prompts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Diffusion:
    """What a generative decode needs beside LFGCM and VAE."""

    denoiser: Denoiser
    text: TextEmbedder


@dataclass(frozen=True)
class Sd21Networks:
    """One rate of the paper's model, all parts on one device.

    `diffusion` makes its part at the first call and returns the same at each. `tags` knows their numbers, which order a
    prompt.
    """

    config: Sd21Config
    lfgcm: Lfgcm
    vae: LatentAutoencoder
    tags: TagList
    diffusion: Callable[[], Diffusion]

    @property
    def device(self) -> torch.device:
        return self.lfgcm.device

    @property
    def qualities(self) -> range:
        return range(1, 2)

    @property
    def default_quality(self) -> int:
        return 1

    @property
    def tile(self) -> int:
        return self.config.tile

    @property
    def entropy(self) -> EntropyNetworks:
        return self.lfgcm

    @property
    def samplers(self) -> Mapping[str, int]:
        return MOST_STEPS

    @property
    def sampling(self) -> Mapping[GenerativeMode, Sampling]:
        drawing = self.config.drawing
        return {
            "full": Sampling(drawing.full_sampler, drawing.full_steps),
            "reference": Sampling(drawing.reference_sampler, drawing.reference_steps),
        }

    @property
    def guidance(self) -> float | None:
        return self.config.drawing.guidance

    @property
    def max_effort(self) -> int:
        return 0

    def analyze(self, images: Tensor, tile: Tile, quality_index: Tensor, effort: int = 0) -> tuple[Tensor, Tensor]:
        reference = self.vae.encode(images)
        y: Tensor = tile.crop(self.lfgcm.encoder(images, reference), Y_STRIDE)
        z = self.lfgcm.hyper_enc(y, tile.crop(reference, LATENT_STRIDE))
        return y, self.lfgcm.centre(z)

    def preview(self, latents: Latents, quality_index: Tensor) -> Tensor:
        return self.draw(self.guide(latents, quality_index))

    def guide(self, latents: Latents, quality_index: Tensor) -> Tensor:
        return self.lfgcm.guide(latents.y_hat, latents.z_symbols)

    def denoise(self, guide: Tensor, noise: Noise, conditions: Conditions) -> Tensor:
        diffusion = self.diffusion()
        estimate = noise_model(diffusion.denoiser, self._conditioning(diffusion.text, guide, conditions))
        name = cast(SamplerName, conditions.sampling.sampler)
        start = noise.start().contiguous(memory_format=torch.channels_last)
        return draw(name, estimate, start, noise.at, conditions.sampling.steps)

    def draw(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent)

    def _conditioning(self, text: TextEmbedder, guide: Tensor, conditions: Conditions) -> Conditioning:
        prompts = [", ".join(self.tags.by_number(names)) for names in conditions.tags]
        context = text.embed(prompts)
        # Without tags both branches of guidance are the same call: its result is that of one, at half the cost.
        scale = conditions.guidance if conditions.guidance is not None and any(prompts) else 1.0
        return Conditioning(guide, context, text.embed([""]), scale)
