"""Building blocks that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv3(lrelu(conv3(x))): `(B, C, H, W)` to the same. The branch is damped at the start of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.conv_1.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_1(F.leaky_relu(self.conv_0(x), 0.1))


class QualityModulation(nn.Module):
    """Scales and shifts the channels of a feature map by learned values of the quality; the identity at the start.

    `(B, C, H, W)` features and `(B,)` int64 quality indexes, from 0, to `(B, C, H, W)`.
    """

    def __init__(self, qualities: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(qualities, channels))
        self.shift = nn.Parameter(torch.zeros(qualities, channels))

    def forward(self, x: Tensor, quality_index: Tensor) -> Tensor:
        return x * (1 + self.scale[quality_index, :, None, None]) + self.shift[quality_index, :, None, None]


class Upsample(nn.Module):
    """1 x 1 convolution and pixel shuffle: `(B, C, H, W)` to `(B, D, 2H, 2W)`."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast: linear transforms of pixel values need more than eight bits of mantissa."""
    return torch.autocast(x.device.type, enabled=False)


def zero_init(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with weights and bias at zero, so that a residual branch starts as nothing."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def blocks(channels: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))
