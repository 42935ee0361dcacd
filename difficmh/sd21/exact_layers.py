"""Layers of the entropy networks in two arithmetics: floating point, and exact integers carried in float64.

`fixed_point.py` has the principle. The networks here were trained elsewhere, without its limits, so there is more room:
weights keep 16 fractional bits, and activations may reach ±4096 before they are clamped. Every layer clamps what it is
given, so the bound that their `freeze` proves holds whatever is decoded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.fixed_point import ONE, ExactLayer, FixedPointConv2d, exact_weight, rescale, to_fixed
from difficmh.sd21.gelu_table import gelu_deficit

WEIGHT_BITS = 16
LIMIT = 4096.0
"""Activations are clamped to ±LIMIT in the exact arithmetic; the official networks, in floating point, are not."""


def bounded(x: Tensor) -> Tensor:
    """Integer activations clamped to ±LIMIT."""
    return x.clamp(-LIMIT * ONE, LIMIT * ONE)


class ExactConv2d(FixedPointConv2d):
    """A convolution with the bounds of this module."""

    weight_bits = WEIGHT_BITS
    limit = LIMIT

    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations `(B, C, h, w)` float64 to integer activations. `freeze` comes first."""
        return super().fixed(bounded(x))

    def fixed_at_others(self, anchors: Tensor) -> Tensor:
        """`fixed` of a checkerboard whose others are not known, at these: `FixedPointConv2d.fixed_at_others`."""
        return super().fixed_at_others(bounded(anchors))


class ExactConvTranspose2d(nn.ConvTranspose2d, ExactLayer):
    """A transposed convolution with the bounds of this module."""

    def freeze(self) -> None:
        """Derives the integer weights. Raises ValueError where a sum could leave the exact range of float64."""
        weight = exact_weight(self.weight.transpose(0, 1), WEIGHT_BITS, LIMIT).transpose(0, 1).contiguous()
        self.register_buffer("integer_weight", weight, persistent=False)
        bias = torch.zeros(self.out_channels) if self.bias is None else self.bias.detach()
        self.register_buffer("integer_bias", to_fixed(bias)[:, None, None], persistent=False)

    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations `(B, C, h, w)` float64 to integer activations. `freeze` comes first."""
        weight, bias = self.get_buffer("integer_weight"), self.get_buffer("integer_bias")
        padding = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)
        total = F.conv_transpose2d(bounded(x), weight, None, self.stride, padding, self.output_padding)
        return rescale(total, WEIGHT_BITS).add_(bias)


class ExactGelu(nn.GELU, ExactLayer):
    """GELU; the exact one is a stored table, since no two mathematical libraries agree on the last bit."""

    def freeze(self) -> None:
        """Makes the table."""
        self.register_buffer("deficit", torch.tensor(gelu_deficit(), dtype=torch.float64), persistent=False)

    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations, float64, to integer activations within half a unit of GELU. `freeze` comes first."""
        deficit = self.get_buffer("deficit")
        places = x.abs().clamp_(max=len(deficit) - 1).long()
        return x.clamp(min=0).sub_(deficit[places])


class ExactSequential(nn.Sequential):
    """Layers of this module one after the other, in both arithmetics."""

    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations, float64, to integer activations. `freeze` comes first."""
        for layer in self:
            x = layer.fixed(x)  # type: ignore[operator]
        return x


def exact_conv(channels: int, out_channels: int, kernel: int) -> ExactConv2d:
    """A convolution that keeps the size."""
    return ExactConv2d(channels, out_channels, kernel, padding=kernel // 2)


def exact_deconv(channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> ExactConvTranspose2d:
    """A transposed convolution that multiplies height and width by `stride`."""
    return ExactConvTranspose2d(
        channels, out_channels, kernel, stride=stride, padding=kernel // 2, output_padding=stride - 1
    )


def exact_chain(*layers: nn.Module) -> ExactSequential:
    """The layers with a GELU between each two."""
    chain: list[nn.Module] = [layers[0]]
    for layer in layers[1:]:
        chain += [ExactGelu(), layer]
    return ExactSequential(*chain)
