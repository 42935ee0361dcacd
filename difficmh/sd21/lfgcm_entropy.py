"""Entropy networks of the latent codec: what is known about each symbol of y before it is decoded.

    z_hat ──hyper_dec──► hyper parameters ─┐
    decoded slices ──channel_context───────┤──► entropy_parameters ──► scale, mean of each position
    decoded anchors ──local_context────────┘

y is coded in channel slices, each in two checkerboard passes, anchors first (`checkerboard.py`). One set of networks,
two arithmetics: `walk` in floating point, for training and for streams of the official implementation, and `traverse`
in exact integers, for our own. Source of the structure: Diff-ICMH, official implementation (arXiv 2511.22549).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difficmh import checkerboard
from difficmh.cdf_tables import SCALE_MIN
from difficmh.fixed_point import ONE, freeze, to_fixed
from difficmh.gradients import lower_bound, straight_through_round
from difficmh.sd21.exact_layers import ExactConv2d, bounded, exact_chain, exact_conv, exact_deconv
from difficmh.sd21.factorized_density import LIKELIHOOD_BOUND, FactorizedDensity
from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.symbols import Exchange

CONTEXT_WIDTHS = (224, 128)

LOWEST_INDEX = 1
"""The lowest scale index of our own streams. Symbols at index 0 would not be coded at all, but taken for 0: that would
alter y_hat where the networks are certain and wrong, to save at most 2e-4 bits per symbol."""

_SCALE_STEPS = """
112 127 144 162 184 208 235 266 301 340 385 436 493 557 630 713 806 912 1031 1167 1319 1492 1688 1909 2159 2441 2761
3123 3532 3994 4518 5109 5778 6535 7391 8359 9453 10691 12091 13675 15465 17491 19781 22371 25301 28614 32361 36598
41391 46811 52941 59873 67713 76580 86608 97949 110776 125281 141686 160240 181223 204953 231791
"""
SCALE_STEPS = tuple(int(step) for step in _SCALE_STEPS.split())
"""The scale index of an integer activation is how many of these are smaller: the scales of the Gaussian tables in units
of 1/1024, rounded down, without the last. Stored, so that every machine has the same."""

Decode = Callable[[Tensor, Tensor], Tensor]
"""`(means, scales)` of one pass to the decoded values, all `(B, C, h, w/2)` float; scales are raw, maybe negative."""


@dataclass(frozen=True)
class Prediction:
    """What `walk` found, each `(B, M, h, w)` float: decoded values, and the Gaussian expected at each position.

    `scales` are raw outputs of the networks: below 0.11, even below 0, they stand for 0.11.
    """

    y_hat: Tensor
    means: Tensor
    scales: Tensor


@dataclass(frozen=True)
class Likelihoods:
    """Probabilities of values of y and z, in [1e-9, 1], in the shapes of y and z."""

    y: Tensor
    z: Tensor

    def bits(self) -> tuple[Tensor, Tensor]:
        """Bits of each image for y and for z, both `(B,)`."""
        return -torch.log2(self.y).flatten(1).sum(1), -torch.log2(self.z).flatten(1).sum(1)


class HyperSynthesis(nn.Module):
    """z_hat, `(B, N, h, w)`, to hyper parameters, `(B, 2M, 4h, 4w)`."""

    def __init__(self, config: LfgcmConfig) -> None:
        super().__init__()
        n, m = config.hyper_channels, config.channels
        self.hyper_dec = exact_chain(
            exact_deconv(n, m), exact_deconv(m, 3 * m // 2), exact_deconv(3 * m // 2, 2 * m, 3, 1)
        )

    def forward(self, z_hat: Tensor) -> Tensor:
        return self.hyper_dec(z_hat)


class ChannelContext(nn.Module):
    """Decoded slices, `(B, C, h, w)`, to what they say of the next one, `(B, 2 C_next, h, w)`."""

    def __init__(self, previous: int, channels: int) -> None:
        super().__init__()
        first, second = CONTEXT_WIDTHS
        self.fushion = exact_chain(
            exact_conv(previous, first, 5), exact_conv(first, second, 5), exact_conv(second, 2 * channels, 5)
        )


class EntropyParameters(nn.Module):
    """Everything known at a position, `(B, K, h, w)`, to scales, then means, `(B, 2 C, h, w)`."""

    def __init__(self, known: int, channels: int) -> None:
        super().__init__()
        out = 2 * channels
        first, second = out * 5 // 3, out * 4 // 3
        self.fusion = exact_chain(exact_conv(known, first, 1), exact_conv(first, second, 1), exact_conv(second, out, 1))


class LfgcmEntropy(nn.Module):
    """Probabilities of y and z. Attributes carry the names of the official checkpoints.

    To `symbols.py` this is an entropy model of one rate: the quality index is always 0.
    """

    def __init__(self, config: LfgcmConfig) -> None:
        super().__init__()
        self.config = config
        self.slices = config.slices
        self.hyper_dec = HyperSynthesis(config)
        starts = [sum(self.slices[:i]) for i in range(len(self.slices))]
        self.channel_context: Mapping[str, ChannelContext] = nn.ModuleDict(  # type: ignore[assignment]
            {str(i): ChannelContext(starts[i], c) for i, c in enumerate(self.slices) if i > 0}
        )
        self.local_context: Sequence[ExactConv2d] = nn.ModuleList(  # type: ignore[assignment]
            exact_conv(c, 2 * c, 5) for c in self.slices
        )
        known = [2 * config.channels + (2 * c if i > 0 else 0) for i, c in enumerate(self.slices)]
        self.entropy_parameters_anchor: Sequence[EntropyParameters] = nn.ModuleList(  # type: ignore[assignment]
            EntropyParameters(k, c) for k, c in zip(known, self.slices, strict=True)
        )
        self.entropy_parameters_nonanchor: Sequence[EntropyParameters] = nn.ModuleList(  # type: ignore[assignment]
            EntropyParameters(k + 2 * c, c) for k, c in zip(known, self.slices, strict=True)
        )
        self.entropy_bottleneck = FactorizedDensity(config.hyper_channels)

    @property
    def hyper_channels(self) -> int:
        """Channels of z."""
        return self.config.hyper_channels

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.entropy_bottleneck.quantiles.device

    # --- z ----------------------------------------------------------------------------------------------------------

    def centre(self, z: Tensor) -> Tensor:
        """z `(B, N, h, w)` relative to the medians: rounded, these are the symbols that are coded."""
        return z - self.entropy_bottleneck.medians

    def z_hat(self, z_symbols: Tensor) -> Tensor:
        """z as float32 again from its symbols `(B, N, h, w)` of any dtype. Pictures only: `traverse` has its own."""
        return z_symbols.float() + self.entropy_bottleneck.medians

    # --- floating point ---------------------------------------------------------------------------------------------

    def predict(self, y: Tensor, z: Tensor) -> Prediction:
        """Training's pass: y `(B, M, 4h, 4w)` and z `(B, N, h, w)` are rounded here, the gradients pass straight."""
        halves = iter(self.passes(y))

        def decode(means: Tensor, _: Tensor) -> Tensor:
            return straight_through_round(next(halves) - means) + means

        return self.walk(self.quantize_z(z), decode)

    def quantize_z(self, z: Tensor) -> Tensor:
        """z_hat of z, `(B, N, h, w)`, with straight-through gradients."""
        medians = self.entropy_bottleneck.medians
        return straight_through_round(z - medians) + medians

    def passes(self, y: Tensor) -> list[Tensor]:
        """y `(B, M, h, w)` in coding order: anchors, then the others, of each slice, `(B, C, h, w/2)` each."""
        return [half for part in y.split(self.slices, dim=1) for half in checkerboard.split(part)]

    def walk(self, z_hat: Tensor, decode: Decode) -> Prediction:
        """Runs over y in coding order in floating point, calling `decode` for each pass.

        The sums are those of the official implementation, in its order and shapes, because its streams depend on the
        last bit of their result.
        """
        hyper = self.hyper_dec(z_hat)
        decoded: list[Tensor] = []
        found: list[tuple[Tensor, Tensor]] = []
        for i in range(len(self.slices)):
            context = [self.channel_context[str(i)].fushion(torch.cat(decoded, dim=1))] if i else []
            y_hat, means, scales = self._walk_slice(i, torch.cat([*context, hyper], dim=1), decode)
            decoded.append(y_hat)
            found.append((means, scales))
        means, scales = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return Prediction(torch.cat(decoded, dim=1), means, scales)

    def _walk_slice(self, i: int, known: Tensor, decode: Decode) -> tuple[Tensor, Tensor, Tensor]:
        first = [
            checkerboard.split(x)[0] for x in self.entropy_parameters_anchor[i].fusion(known).chunk(2, dim=1)
        ]  # scales, means
        anchors = decode(first[1], first[0])
        local = self.local_context[i](checkerboard.merge(anchors, torch.zeros_like(anchors)))
        parameters = self.entropy_parameters_nonanchor[i].fusion(torch.cat((local, known), dim=1))
        second = [checkerboard.split(x)[1] for x in parameters.chunk(2, dim=1)]
        others = decode(second[1], second[0])
        scales, means = (checkerboard.merge(a, b) for a, b in zip(first, second, strict=True))
        return checkerboard.merge(anchors, others), means, scales

    def likelihoods(
        self, y: Tensor, z: Tensor, prediction: Prediction, noise: tuple[Tensor, Tensor] | None = None
    ) -> Likelihoods:
        """Probabilities of y and z, rounded, or with `noise` for y and z in [-1/2, 1/2) added instead (training)."""
        medians = self.entropy_bottleneck.medians
        if noise is None:
            # Not the rounded difference itself: the official code adds the means and subtracts them again, and the
            # last bits of its likelihoods depend on it.
            deviation = torch.round(y - prediction.means) + prediction.means - prediction.means
            z_values = torch.round(z - medians) + medians
        else:
            deviation, z_values = y + noise[0] - prediction.means, z + noise[1]
        return Likelihoods(
            gaussian_likelihood(deviation, prediction.scales), self.entropy_bottleneck.likelihood(z_values)
        )

    # --- exact integers, for coding ---------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Prepares the exact arithmetic; call once after loading weights.

        Raises ValueError where the weights are too large for it.
        """
        freeze(self)
        medians = self.entropy_bottleneck.medians.detach()
        self.register_buffer("integer_medians", to_fixed(medians), persistent=False)
        self.register_buffer("scale_steps", torch.tensor(SCALE_STEPS, dtype=torch.float64), persistent=False)

    def traverse(self, z_symbols: Tensor, quality_index: int, exchange: Exchange) -> Tensor:
        """Runs over y in coding order, calling `exchange` for each pass, as `EntropyModel.traverse` does.

        z_symbols: `(B, N, h, w)` integers in any dtype, relative to the medians; quality_index: 0, as there is one
        rate per model.
        Returns y_hat, `(B, M, 4h, 4w)` float32.
        """
        if quality_index != 0:
            raise ValueError(f"a model of one rate has no quality index {quality_index}")
        hyper = self.hyper_dec.hyper_dec.fixed(z_symbols.double() * ONE + self.get_buffer("integer_medians"))
        decoded: list[Tensor] = []
        for i in range(len(self.slices)):
            context = [self.channel_context[str(i)].fushion.fixed(torch.cat(decoded, dim=1))] if i else []
            decoded.append(self._traverse_slice(i, torch.cat([*context, hyper], dim=1), exchange))
        return (torch.cat(decoded, dim=1) / ONE).float()

    def _traverse_slice(self, i: int, known: Tensor, exchange: Exchange) -> Tensor:
        first, second = checkerboard.split(known)
        anchors = self._traverse_half(self.entropy_parameters_anchor[i], first, exchange)
        second = torch.cat((self.local_context[i].fixed_at_others(anchors), second), dim=1)
        others = self._traverse_half(self.entropy_parameters_nonanchor[i], second, exchange)
        return checkerboard.merge(anchors, others)

    def _traverse_half(self, parameters: EntropyParameters, known: Tensor, exchange: Exchange) -> Tensor:
        scales, means = parameters.fusion.fixed(known).chunk(2, dim=1)
        means = bounded(means)
        indexes = torch.bucketize(scales.contiguous(), self.get_buffer("scale_steps")).clamp_(min=LOWEST_INDEX)
        return exchange(means, indexes.double()) * ONE + means


def gaussian_likelihood(deviation: Tensor, scales: Tensor) -> Tensor:
    """Probability of the unit interval around each deviation from the mean, in [1e-9, 1]; `scales` as in Prediction."""
    distance, bounded_scales = deviation.abs(), lower_bound(scales, SCALE_MIN)
    upper, lower = ((edge - distance) / bounded_scales for edge in (0.5, -0.5))
    return lower_bound(normal_cdf(upper) - normal_cdf(lower), LIKELIHOOD_BOUND)


def normal_cdf(x: Tensor) -> Tensor:
    """The standard normal distribution function, precise for negative arguments."""
    return 0.5 * torch.erfc(-math.sqrt(0.5) * x)
