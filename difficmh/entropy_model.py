"""Hyperprior and context model: what is known about each symbol of y before it is decoded.

    z_hat ──h_s──► features ─┐
    decoded slices ──channel context──┤──► 1 x 1 convolutions ──► mean, scale index of each position
    decoded anchors ──local context───┘

y is coded in channel slices (Minnen & Singh, ICIP 2020), each in two checkerboard passes (He et al., CVPR 2021). The
networks run in two arithmetics: `forward` in floating point for training, `traverse` in exact integers for coding
(`fixed_point.py`); encoder and decoder share `traverse`, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh import checkerboard
from difficmh.cdf_tables import SCALE_MIN, SCALE_STEP, SCALES
from difficmh.config import CodecConfig, EntropyConfig
from difficmh.fixed_point import (
    LIMIT,
    ONE,
    FixedPointConv2d,
    FixedPointStack,
    freeze,
    leaky_relu,
    leaky_relu_fixed,
    to_fixed,
)
from difficmh.gradients import lower_bound, straight_through_round
from difficmh.symbols import Exchange


@dataclass(frozen=True)
class EntropyOutput:
    """Result of a training pass, each `(B, M, h, w)`: quantised `y_hat`, and the Gaussian expected at each position."""

    y_hat: Tensor
    means: Tensor
    scales: Tensor


class HyperSynthesis(nn.Module):
    """h_s: z_hat, `(B, N, H/64, W/64)` integers, to features, `(B, F, H/16, W/16)`."""

    def __init__(self, config: EntropyConfig) -> None:
        super().__init__()
        width, features = config.hyper_width, config.feature_channels
        self.enter = FixedPointConv2d(config.hyper_channels, width, 3, padding=1)
        self.up_32 = FixedPointConv2d(width, 4 * width, 1)
        self.mix_32 = FixedPointConv2d(width, width, 3, padding=1)
        self.up_16 = FixedPointConv2d(width, 4 * features, 1)
        self.mix_16 = FixedPointConv2d(features, features, 3, padding=1)

    def forward(self, z_hat: Tensor) -> Tensor:
        x = leaky_relu(F.pixel_shuffle(self.up_32(leaky_relu(self.enter(z_hat))), 2))
        x = leaky_relu(F.pixel_shuffle(self.up_16(leaky_relu(self.mix_32(x))), 2))
        return leaky_relu(self.mix_16(x))

    def fixed(self, z_hat: Tensor) -> Tensor:
        """`forward` on integer activations, float64."""
        x = leaky_relu_fixed(F.pixel_shuffle(self.up_32.fixed(leaky_relu_fixed(self.enter.fixed(z_hat))), 2))
        x = leaky_relu_fixed(F.pixel_shuffle(self.up_16.fixed(leaky_relu_fixed(self.mix_32.fixed(x))), 2))
        return leaky_relu_fixed(self.mix_16.fixed(x))


class SliceContext(nn.Module):
    """Mean and scale of one channel slice from features, earlier slices and, for the second pass, the anchors."""

    def __init__(self, config: EntropyConfig, previous: int, channels: int) -> None:
        super().__init__()
        context, width = config.context_channels, config.parameter_width
        kernel = 5 if channels <= 32 else 3
        self.channel = FixedPointConv2d(previous, context, 3, padding=1) if previous else None
        self.local = FixedPointConv2d(channels, context, kernel, padding=kernel // 2)
        known = config.feature_channels + context + (context if previous else 0)
        self.mix = FixedPointStack(
            FixedPointConv2d(known, width, 1),
            FixedPointConv2d(width, width, 1),
            FixedPointConv2d(width, 2 * channels, 1),
        )

    def known(self, features: Tensor, decoded: list[Tensor]) -> Tensor:
        """What both passes know, `(B, K, h, w)`."""
        if self.channel is None:
            return features
        return torch.cat((features, leaky_relu(self.channel(torch.cat(decoded, dim=1)))), dim=1)

    def known_fixed(self, features: Tensor, decoded: list[Tensor]) -> Tensor:
        """`known` of integer activations, float64."""
        if self.channel is None:
            return features
        return torch.cat((features, leaky_relu_fixed(self.channel.fixed(torch.cat(decoded, dim=1)))), dim=1)


class EntropyModel(nn.Module):
    """Probabilities of y and z. See the module's description."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        entropy = config.entropy
        self.slices = entropy.slices
        self.context_channels = entropy.context_channels
        self.h_s = HyperSynthesis(entropy)
        starts = [sum(self.slices[:i]) for i in range(len(self.slices))]
        self.contexts: Iterable[SliceContext] = nn.ModuleList(  # type: ignore[assignment]
            SliceContext(entropy, start, channels) for start, channels in zip(starts, self.slices, strict=True)
        )
        self.quality_bias = nn.Parameter(torch.zeros(config.qualities, 2, entropy.channels))

    @property
    def hyper_channels(self) -> int:
        """Channels of z."""
        return self.h_s.enter.in_channels

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.quality_bias.device

    # --- floating point, for training -------------------------------------------------------------------------------

    def forward(self, y: Tensor, z: Tensor, quality_index: Tensor) -> EntropyOutput:
        """y `(B, M, h, w)`, z `(B, N, h/4, w/4)`, quality_index `(B,)` int64; both are quantised here."""
        features = self.h_s(straight_through_round(z))
        decoded: list[Tensor] = []
        means, scales = [], []
        biases = self.quality_bias[quality_index].split(self.slices, dim=2)
        for context, part, bias in zip(self.contexts, y.split(self.slices, dim=1), biases, strict=True):
            y_hat, mean, scale = self._slice(context, part, bias, context.known(features, decoded))
            decoded.append(y_hat)
            means.append(mean)
            scales.append(scale)
        scale = SCALE_MIN * torch.exp(SCALE_STEP * torch.cat(scales, dim=1))
        return EntropyOutput(torch.cat(decoded, dim=1), torch.cat(means, dim=1), scale)

    def _slice(self, context: SliceContext, part: Tensor, bias: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = checkerboard.split(part)
        knowns = checkerboard.split(known)
        nothing = torch.zeros_like(knowns[0][:, : self.context_channels])
        anchors, *anchor_parameters = self._half(context, parts[0], bias, knowns[0], nothing)
        local = leaky_relu(context.local(checkerboard.merge(anchors, torch.zeros_like(anchors))))
        others, *other_parameters = self._half(context, parts[1], bias, knowns[1], checkerboard.split(local)[1])
        mean, scale = (checkerboard.merge(a, b) for a, b in zip(anchor_parameters, other_parameters, strict=True))
        return checkerboard.merge(anchors, others), mean, scale

    def _half(
        self, context: SliceContext, part: Tensor, bias: Tensor, known: Tensor, local: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, scale = context.mix(torch.cat((known, local), dim=1)).chunk(2, dim=1)
        mean = (mean + bias[:, 0, :, None, None]).clamp(-LIMIT, LIMIT)
        scale = lower_bound(scale + bias[:, 1, :, None, None], 0.0).clamp(max=SCALES - 1)
        return straight_through_round(part - mean) + mean, mean, scale

    # --- exact integers, for coding ---------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Prepares the exact arithmetic; call once after loading weights."""
        freeze(self)
        self.register_buffer("integer_bias", to_fixed(self.quality_bias.detach()), persistent=False)

    def traverse(self, z_symbols: Tensor, quality_index: int, exchange: Exchange) -> Tensor:
        """Runs over y in coding order, calling `exchange` for each pass.

        z_symbols: `(B, N, h, w)` integers in any dtype.
        Returns y_hat, `(B, M, 4h, 4w)` float32.
        """
        features = self.h_s.fixed(z_symbols.double() * ONE)
        bias = self.get_buffer("integer_bias")[quality_index, :, :, None, None].split(self.slices, dim=1)
        decoded: list[Tensor] = []
        bounded: list[Tensor] = []
        for context, (mean_bias, scale_bias) in zip(self.contexts, bias, strict=True):
            y_hat = self._traverse_slice(
                context, context.known_fixed(features, bounded), (mean_bias, scale_bias), exchange
            )
            decoded.append(y_hat)
            bounded.append(y_hat.clamp(-LIMIT * ONE, LIMIT * ONE))
        return (torch.cat(decoded, dim=1) / ONE).float()

    def _traverse_slice(
        self, context: SliceContext, known: Tensor, bias: tuple[Tensor, Tensor], exchange: Exchange
    ) -> Tensor:
        first, second = checkerboard.split(known)
        nothing = torch.zeros_like(first[:, : self.context_channels])
        anchors = self._traverse_half(context, torch.cat((first, nothing), dim=1), bias, exchange)
        seen = anchors.clamp(-LIMIT * ONE, LIMIT * ONE)
        local = leaky_relu_fixed(context.local.fixed_at_others(seen))
        others = self._traverse_half(context, torch.cat((second, local), dim=1), bias, exchange)
        return checkerboard.merge(anchors, others)

    @staticmethod
    def _traverse_half(context: SliceContext, known: Tensor, bias: tuple[Tensor, Tensor], exchange: Exchange) -> Tensor:
        mean, scale = context.mix.fixed(known).chunk(2, dim=1)
        mean = (mean + bias[0]).clamp(-LIMIT * ONE, LIMIT * ONE)
        index = torch.round((scale + bias[1]) / ONE).clamp(0, SCALES - 1)
        return exchange(mean, index) * ONE + mean
