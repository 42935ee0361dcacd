"""The denoiser: a diffusion UNet over the autoencoder's latent, steered by a control branch and by tags.

    tags, t ──► condition ─────────────┬──────────────┐
    x_t ──► base encoder ──► middle ──► base decoder ──► output
              ▲ +              ▲ +         ▲ +
    x_t, c ──► control encoder ──► middle (one-way: nothing flows back)

The base UNet is an image prior of its own: without the control branch it denoises from tags alone, and its features
define the semantic consistency loss. The control branch adds its features at every scale (Diff-ICMH's CDDM; 1 x 1
convolutions that start at zero).

Parametrisation: with signal rate a = sqrt(alpha_bar) and noise rate s = sqrt(1 - alpha_bar), the estimate of the clean
latent is  x0 = a x_t + s² c - s F  with control and  x0 = a x_t - s F  without, so that an untrained control branch
already returns the guide latent. F without control is the v of Salimans & Ho (ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.config import DenoiserConfig
from difficmh.layers import zero_init
from difficmh.sampler import signal_and_noise


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels at each position: no statistics over space, so tiles agree with the whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-4) * self.gain[:, None, None]


class ConditionedBlock(nn.Module):
    """Residual block, scaled and shifted by the condition: `(B, C, H, W)`, `(B, E)` to `(B, D, H, W)`."""

    def __init__(self, channels: int, out_channels: int, condition: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * out_channels)
        self.conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.conv_1.weight.mul_(0.2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_0(self.norm(x)) * (1 + scale) + shift
        return self.skip(x) + self.conv_1(F.silu(h))


class Condition(nn.Module):
    """Time step and tags to one vector: `(B,)` steps in [0, 1000), `(B, V)` float tag indicators to `(B, E)`.

    Learned embeddings of the tags are added up over the root of their number: no tag is the unconditional case.
    """

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.tags = nn.Parameter(0.02 * torch.randn(vocabulary_size, width))
        self.width = width

    def forward(self, timesteps: Tensor, tags: Tensor) -> Tensor:
        numbers = torch.arange(self.width // 2, dtype=torch.float32, device=timesteps.device)
        frequencies = torch.exp(numbers * (-math.log(1e4) * 2 / self.width))
        angles = timesteps[:, None].float() * frequencies
        embedding = torch.cat((angles.cos(), angles.sin()), dim=1)
        count = tags.sum(dim=1, keepdim=True).clamp(min=1)
        return F.silu(self.time(embedding) + (tags @ self.tags) / count.sqrt())


@dataclass(frozen=True)
class Features:
    """Encoder output: one map per resolution, 1/8 first, and the middle's."""

    scales: tuple[Tensor, ...]
    middle: Tensor


@dataclass(frozen=True)
class Additions:
    """What the control branch adds: to the encoder's scales, to the middle, to the decoder's skip connections."""

    encoder: tuple[Tensor, ...]
    middle: Tensor
    decoder: tuple[Tensor, ...]


class Encoder(nn.Module):
    """1/8 → 1/16 → 1/32 and a middle block; `additions` are summed in after each resolution."""

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int], condition: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(ConditionedBlock(width, width, condition) for _ in range(depth))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.middle = ConditionedBlock(widths[-1], widths[-1], condition)

    def forward(self, x: Tensor, condition: Tensor, additions: Additions | None = None) -> Features:
        h, scales = self.enter(x), []
        for i, level in enumerate(self.levels):
            for block in level.children():
                h = block(h, condition)
            if additions is not None:
                h = h + additions.encoder[i]
            scales.append(h)
            if i < len(self.downs):
                h = self.downs[i](h)
        middle = self.middle(h, condition)
        if additions is not None:
            middle = middle + additions.middle
        return Features(tuple(scales), middle)


class Decoder(nn.Module):
    """1/32 → 1/8 with skip connections, to the output channels."""

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int], condition: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConditionedBlock(2 * width if k == 0 else width, width, condition) for k in range(max(1, depth - 1))
            )
            for width, depth in zip(reversed(widths), reversed(depths), strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(reversed(widths)))
        self.norm = ChannelNorm(widths[0])
        self.leave = zero_init(nn.Conv2d(widths[0], channels, 3, padding=1))

    def forward(self, features: Features, condition: Tensor) -> Tensor:
        h = features.middle
        for i, level in enumerate(self.levels):
            h = torch.cat((h, features.scales[-1 - i]), dim=1)
            for block in level.children():
                h = block(h, condition)
            if i < len(self.ups):
                h = F.pixel_shuffle(self.ups[i](h), 2)
        return self.leave(F.silu(self.norm(h)))


class ControlBranch(nn.Module):
    """Second encoder over cat[x_t, c], and the 1 x 1 convolutions that carry its features into the base UNet."""

    def __init__(self, channels: int, config: DenoiserConfig) -> None:
        super().__init__()
        narrow = [int(width * config.control_ratio) for width in config.widths]
        self.encoder = Encoder(2 * channels, narrow, config.depths, config.condition_width)
        pairs = list(zip(narrow, config.widths, strict=True))
        self.to_encoder = nn.ModuleList(zero_init(nn.Conv2d(a, b, 1)) for a, b in pairs)
        self.to_decoder = nn.ModuleList(zero_init(nn.Conv2d(a, b, 1)) for a, b in pairs)
        self.to_middle = zero_init(nn.Conv2d(narrow[-1], config.widths[-1], 1))

    def forward(self, x_t: Tensor, guide: Tensor, condition: Tensor) -> Additions:
        features = self.encoder(torch.cat((x_t, guide), dim=1), condition)
        return Additions(
            encoder=tuple(conv(h) for conv, h in zip(self.to_encoder, features.scales, strict=True)),
            middle=self.to_middle(features.middle),
            decoder=tuple(conv(h) for conv, h in zip(self.to_decoder, features.scales, strict=True)),
        )


class Denoiser(nn.Module):
    """Base UNet, control branch and condition. `(B, C, h, w)` latents with h and w multiples of 4."""

    def __init__(self, latent_channels: int, config: DenoiserConfig) -> None:
        super().__init__()
        self.condition = Condition(config.condition_width, config.vocabulary_size)
        self.encoder = Encoder(latent_channels, config.widths, config.depths, config.condition_width)
        self.decoder = Decoder(latent_channels, config.widths, config.depths, config.condition_width)
        self.control = ControlBranch(latent_channels, config)

    def forward(self, x_t: Tensor, timesteps: Tensor, tags: Tensor, guide: Tensor | None) -> Tensor:
        """F of the parametrisation above. timesteps `(B,)` int64, tags `(B, V)` float in {0, 1}."""
        condition = self.condition(timesteps, tags)
        if guide is None:
            return self.decoder(self.encoder(x_t, condition), condition)
        additions = self.control(x_t, guide, condition)
        features = self.encoder(x_t, condition, additions)
        scales = tuple(h + skip for h, skip in zip(features.scales, additions.decoder, strict=True))
        return self.decoder(Features(scales, features.middle), condition)

    def clean_estimate(self, x_t: Tensor, timesteps: Tensor, tags: Tensor, guide: Tensor | None) -> Tensor:
        """x0 by the parametrisation above, `(B, C, h, w)` float32; arguments as in `forward`."""
        a, s = signal_and_noise(timesteps)
        known = a * x_t if guide is None else a * x_t + s**2 * guide
        return known - s * self(x_t, timesteps, tags, guide)

    @staticmethod
    def target(latent: Tensor, noise: Tensor, timesteps: Tensor, guide: Tensor | None) -> Tensor:
        """The F with which `clean_estimate` finds the clean latent, where x_t has this noise (`sampler.noised`)."""
        a, s = signal_and_noise(timesteps)
        return a * noise - s * (latent if guide is None else latent - guide)

    def semantic_features(self, latent: Tensor, tags: Tensor) -> Tensor:
        """Middle features of the base UNet for a clean latent (t = 0), `(B, D, h/4, w/4)`."""
        timesteps = torch.zeros(latent.shape[0], dtype=torch.int64, device=latent.device)
        return self.encoder(latent, self.condition(timesteps, tags)).middle
