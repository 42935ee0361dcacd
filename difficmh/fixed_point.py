"""Exact arithmetic for everything that selects a CDF or shifts a symbol.

Floating-point convolutions differ between devices, thread counts and instruction sets in the last bits, and one flipped
bit in an entropy parameter destroys a stream. Here activations and weights are integers carried in float64, so that
every partial sum is exact in any order, and each layer ends with a rounding that is exact too:

    activation = round(x * 2**ACTIVATION_BITS)      weight = round(w * 2**WEIGHT_BITS)
    accumulator = sum(weight * activation)          < 2**53, checked when the layer is frozen
    output      = round(accumulator / 2**WEIGHT_BITS) + bias

Training runs the same layers in floating point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh import checkerboard

ACTIVATION_BITS = 10
WEIGHT_BITS = 12
LIMIT = 512.0
"""Activations are clamped to ±LIMIT in both arithmetics."""

ONE = float(2**ACTIVATION_BITS)


def to_fixed(x: Tensor) -> Tensor:
    """Floats to integer activations in float64."""
    return torch.round(x.double() * ONE)


def leaky_relu(x: Tensor) -> Tensor:
    """Slope 1/8 for negative values, clamped to ±LIMIT."""
    return F.leaky_relu(x, 0.125).clamp(-LIMIT, LIMIT)


def leaky_relu_fixed(x: Tensor) -> Tensor:
    """`leaky_relu` on integer activations."""
    return torch.maximum(x, torch.round(x / 8)).clamp_(-LIMIT * ONE, LIMIT * ONE)


def exact_weight(weight: Tensor, bits: int, limit: float) -> Tensor:
    """Weights `(outputs, …)` as float64 integers with `bits` fractional bits, for activations within ±`limit`.

    Raises ValueError where a sum could leave the exact range of float64, or weights are not finite.
    """
    integers = torch.round(weight.detach().double() * 2**bits)
    largest = integers.abs().flatten(1).sum(dim=1).max().item() * limit * ONE
    if not largest < 2**52:
        raise ValueError(f"weights too large for exact sums: one may reach {largest:.3g}, the limit is 2**52")
    return integers


def rescale(total: Tensor, bits: int) -> Tensor:
    """Sums of products with weights of `bits` fractional bits, rounded to integer activations; overwrites `total`."""
    if total.is_cuda:
        # A GPU may pick an algorithm that is no plain sum; its error is far below one half.
        total.round_()
    return total.div_(2**bits).round_()


class ExactLayer(ABC):
    """A layer that has an exact arithmetic beside the floating point of its `forward`."""

    @abstractmethod
    def freeze(self) -> None:
        """Derives what `fixed` needs from the weights. Raises ValueError for weights that are too large for it."""

    @abstractmethod
    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations, float64, to integer activations. `freeze` comes first."""


class FixedPointConv2d(nn.Conv2d, ExactLayer):
    """A convolution with two arithmetics: `forward` in floating point, `fixed` exact on integer activations.

    Subclasses may choose other `weight_bits`, fractional bits of the weights, and another `limit` of the activations.
    """

    weight_bits: ClassVar[int] = WEIGHT_BITS
    limit: ClassVar[float] = LIMIT

    def freeze(self) -> None:
        """Derives the integer weights. Raises ValueError where a sum could leave the exact range of float64."""
        self.register_buffer(
            "integer_weight", exact_weight(self.weight, self.weight_bits, self.limit), persistent=False
        )
        bias = torch.zeros(self.out_channels, dtype=torch.float64) if self.bias is None else self.bias.detach()
        self.register_buffer("integer_bias", to_fixed(bias)[:, None, None], persistent=False)

    def fixed(self, x: Tensor) -> Tensor:
        """Integer activations `(B, C, H, W)` float64 to integer activations. `freeze` comes first."""
        return self._activations(F.conv2d(x, self.get_buffer("integer_weight"), None, self.stride, self.padding))

    def fixed_at_others(self, anchors: Tensor) -> Tensor:
        """`fixed` of a checkerboard of which only the anchors, `(B, C, H, W/2)`, are known: its result at the others.

        Of a layer whose stride is 1 and whose padding keeps the size.
        """
        return self._activations(checkerboard.conv_at_others(anchors, self.get_buffer("integer_weight")))

    def _activations(self, total: Tensor) -> Tensor:
        return rescale(total, self.weight_bits).add_(self.get_buffer("integer_bias"))


class FixedPointStack(nn.Module):
    """Convolutions with leaky ReLUs between them, in both arithmetics; the last layer is linear."""

    def __init__(self, *convs: FixedPointConv2d) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs[:-1]:
            x = leaky_relu(conv(x))
        return self.convs[-1](x)

    def fixed(self, x: Tensor) -> Tensor:
        """`forward` on integer activations, float64."""
        for conv in self.convs[:-1]:
            x = leaky_relu_fixed(conv.fixed(x))  # type: ignore[operator]
        return self.convs[-1].fixed(x)  # type: ignore[operator]


def freeze(module: nn.Module) -> None:
    """Freezes every exact layer inside `module`. Call after loading weights.

    Raises ValueError that names the layer whose weights are too large for exact sums, or not finite.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, ExactLayer):
            try:
                layer.freeze()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
