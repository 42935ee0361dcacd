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

STAGES = (0, 1, 2, 4, 6)
CHANNELS = (16, 24, 40, 112, 320)
"""Blocks of EfficientNet-Lite0 whose output is used, at 1/2 to 1/32 resolution, and their channels."""

INVENTING, SPARED, LEAST_SHARE = 0.00025, 0.0075, 0.1
"""Where bits are plenty the decoder has nothing to invent: the adversarial part counts whole up to the first lambda and
fades over log lambda to the last number at the second."""

FEATURE_STRIDE = 32
"""Pixels between positions of EfficientNet-Lite0's deepest features."""


class FrozenFeatures(nn.Module):
    """EfficientNet-Lite0's features at five scales; `(B, 3, H, W)` in [0, 1] to a list. The network is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.network.bn1(self.network.conv_stem((255 * images - 127) / 128))  # type: ignore[operator]
        found = []
        for index, block in enumerate(self.network.blocks):  # type: ignore[arg-type]
            x = block(x)
            if index in STAGES:
                found.append(x)
        return found

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode: batch statistics belong to the pretrained network."""
        return super().train(False)


class ProjectedDiscriminator(nn.Module):
    """One head per scale, conditioned on the quality; `(features, quality)` to a list of logit maps."""

    def __init__(self, qualities: int, width: int = 64) -> None:
        super().__init__()
        self.enter = nn.ModuleList(spectral_norm(nn.Conv2d(channels, width, 1)) for channels in CHANNELS)
        self.mix = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for _ in CHANNELS)
        self.leave = nn.ModuleList(spectral_norm(nn.Conv2d(width, 1, 1)) for _ in CHANNELS)
        self.quality = nn.ModuleList(nn.Embedding(qualities, width) for _ in CHANNELS)

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


def feature_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """L1 between features in units of their standard deviation, per sample `(B,)`, mean over scales."""
    terms = []
    for r, f in zip(real, fake, strict=True):
        deviation = r.std(dim=(0, 2, 3), keepdim=True) + 1e-3
        terms.append(((f - r) / deviation).abs().flatten(1).mean(1))
    return torch.stack(terms).mean(0)


def adversarial_shares(lambdas: Sequence[float]) -> Tensor:
    """How much the adversarial part counts at each quality, in [0, 1]."""
    spent = torch.log(torch.tensor(lambdas) / INVENTING) / math.log(SPARED / INVENTING)
    return 1 - (1 - LEAST_SHARE) * spent.clamp(0, 1)


class RandomView:
    """A part of `(B, 3, H, W)` images, one stride of the feature network smaller, anywhere, at three quarters to all of
    its size, as float32: the same of each batch that it is given.

    Feature network and decoder have strides in common. On whole crops they would always meet in the same place, and the
    decoder would learn a pattern of its own grid that those strides do not see or like; at one size, a hatching of
    single pixels.
    """

    def __init__(self, shape: torch.Size, generator: torch.Generator) -> None:
        *_, height, width = shape
        down, right = torch.randint(FEATURE_STRIDE, (2,), generator=generator).tolist()
        rows = slice(down, down + height - FEATURE_STRIDE)
        self.window = (slice(None), slice(None), rows, slice(right, right + width - FEATURE_STRIDE))
        self.scale = 1 - torch.rand((), generator=generator).item() / 4

    def __call__(self, images: Tensor) -> Tensor:
        return F.interpolate(images[self.window].float(), scale_factor=self.scale, mode="bilinear", antialias=True)
