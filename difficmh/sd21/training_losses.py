"""The training objective of the paper's model: diffusion, rate, guide and semantic consistency.

No job uses it yet: the model is not trained here, and tests hold the objective against numbers of the official code.
Source: Diff-ICMH, section on training of the official implementation (arXiv 2511.22549).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from difficmh.sampler import noised
from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.lfgcm import Lfgcm, bits_per_pixel
from difficmh.training.losses import cosine_distance, normalized_l2

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine_distance, "normalized_l2": normalized_l2}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the four parts; `rate` is what tells the released models apart: 2, 4, 8, 16 or 32."""

    rate: float
    diffusion: float = 1.0
    guide: float = 1.0
    semantic: float = 2.0


@dataclass(frozen=True)
class SemanticSetting:
    """Where guide and original latent are compared: `metric`, features of the middle (`block` None) or of input block
    `block`, counted from 1; clean latents, or both with the diffusion branch's step and noise (`noisy`)."""

    metric: Literal["cosine", "normalized_l2"] = "cosine"
    block: int | None = None
    noisy: bool = False


@dataclass(frozen=True)
class TrainingBatch:
    """`image` `(B, 3, H, W)` in [0, 1]; `latent` `(B, 4, H/8, W/8)`, its scaled latent, reference and diffusion target
    alike; `context` `(B, 77, D)`; `timesteps` `(B,)` int64 in [0, 1000) and `noise`, as `latent`, of the diffusion."""

    image: Tensor
    latent: Tensor
    context: Tensor
    timesteps: Tensor
    noise: Tensor

    def noised(self, latent: Tensor) -> Tensor:
        """`latent` at the batch's steps, with its noise."""
        return noised(latent, self.noise, self.timesteps)


@dataclass(frozen=True)
class TrainingLosses:
    """The parts, scalars: mean squared errors per element, bits per (padded) pixel, feature distance."""

    diffusion: Tensor
    rate: Tensor
    guide: Tensor
    semantic: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """What training minimises."""
        return (
            weights.diffusion * self.diffusion
            + weights.rate * self.rate
            + weights.guide * self.guide
            + weights.semantic * self.semantic
        )


@dataclass(frozen=True)
class TrainingObjective:
    """The losses of a batch under a codec and a denoiser whose UNet is frozen: its features take no gradient from the
    original latent, and pass it on to the guide latent."""

    lfgcm: Lfgcm
    denoiser: Denoiser
    semantic: SemanticSetting = field(default_factory=SemanticSetting)

    def __call__(self, batch: TrainingBatch, *, noisy_rate: bool = True) -> TrainingLosses:
        """`noisy_rate` pays for values with uniform noise, as in training, else for rounded ones."""
        output = self.lfgcm(batch.image, batch.latent, noisy=noisy_rate)
        likelihoods = output.noisy if output.noisy is not None else output.rounded
        rate_y, rate_z = bits_per_pixel(likelihoods, *batch.image.shape[-2:])
        eps = self.denoiser(batch.noised(batch.latent), batch.timesteps, batch.context, output.guide)
        return TrainingLosses(
            diffusion=F.mse_loss(eps, batch.noise),
            rate=rate_y + rate_z,
            guide=F.mse_loss(output.guide, batch.latent),
            semantic=self._semantic(batch, output.guide),
        )

    def _semantic(self, batch: TrainingBatch, guide: Tensor) -> Tensor:
        with torch.no_grad():
            original = self._features(batch, batch.latent)
        return METRICS[self.semantic.metric](self._features(batch, guide), original)

    def _features(self, batch: TrainingBatch, latent: Tensor) -> Tensor:
        if not self.semantic.noisy:
            return self.denoiser.semantic_features(latent, batch.context, self.semantic.block).float()
        found = self.denoiser.features(batch.noised(latent), batch.timesteps, batch.context)
        chosen = found.middle if self.semantic.block is None else found.encoder[self.semantic.block - 1]
        return chosen.float()
