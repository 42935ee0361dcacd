"""A projected discriminator: small heads on the frozen features of EfficientNet-Lite0.

Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021: a discriminator that sees the features of a pretrained
network, at several scales, converges in a fraction of the steps, also on small data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from difficmh.training.features import CHANNELS

WIDTH = 64
"""Channels of each head."""

INVENTING, SPARED, LEAST_SHARE = 0.00025, 0.0075, 0.1
"""Where bits are plenty the decoder has nothing to invent: the adversarial part counts whole up to the first lambda and
fades over log lambda to the last number at the second."""


class ProjectedDiscriminator(nn.Module):
    """One head per scale, conditioned on the quality; `(features, quality)` to a list of logit maps."""

    def __init__(self, qualities: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(spectral_norm(nn.Conv2d(channels, WIDTH, 1)) for channels in CHANNELS)
        self.mix = nn.ModuleList(spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)) for _ in CHANNELS)
        self.leave = nn.ModuleList(spectral_norm(nn.Conv2d(WIDTH, 1, 1)) for _ in CHANNELS)
        self.quality = nn.ModuleList(nn.Embedding(qualities, WIDTH) for _ in CHANNELS)

    def forward(self, features: list[Tensor], quality: Tensor) -> list[Tensor]:
        logits = []
        for x, enter, mix, leave, embed in zip(features, self.enter, self.mix, self.leave, self.quality, strict=True):
            h = F.leaky_relu(mix(F.leaky_relu(enter(x), 0.2)), 0.2)
            logits.append(leave(h) + (h * embed(quality)[:, :, None, None]).mean(dim=1, keepdim=True))
        return logits


def hinge_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The discriminator's loss, mean over scales."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """What the generator minimises, per sample `(B,)`, mean over scales."""
    return -torch.stack([f.flatten(1).mean(1) for f in fake]).mean(0)


def adversarial_shares(lambdas: Sequence[float]) -> Tensor:
    """How much the adversarial part counts at each quality, in [0, 1]."""
    spent = torch.log(torch.tensor(lambdas) / INVENTING) / math.log(SPARED / INVENTING)
    return 1 - (1 - LEAST_SHARE) * spent.clamp(0, 1)
