"""Blocks of the latent codec: residual down- and upsampling, bottlenecks, and modulation by side information.

Source: Diff-ICMH, official implementation (arXiv 2511.22549). Attribute names are those of its checkpoints, so that
weights load as they are. All maps are `(B, C, h, w)` float.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SHARED_WIDTH = 128
"""Hidden channels of every modulation, whatever the width of what it modulates."""


def conv(channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution whose padding keeps the size, up to the stride."""
    return nn.Conv2d(channels, out_channels, kernel, stride=stride, padding=kernel // 2)


def deconv(channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """A transposed convolution that multiplies height and width by `stride`."""
    return nn.ConvTranspose2d(
        channels, out_channels, kernel, stride=stride, padding=kernel // 2, output_padding=stride - 1
    )


class Down(nn.Module):
    """Residual block at half the resolution. The two activations have different slopes, as trained."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, out_channels, stride=2)
        self.conv2 = conv(out_channels, out_channels)
        self.downsample = conv(channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.leaky_relu(self.conv1(x), 0.01)
        return F.leaky_relu(self.conv2(branch), 0.1) + self.downsample(x)


class Up(nn.Module):
    """Residual block at twice the resolution, by pixel shuffle."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.subpel_conv = nn.Sequential(conv(channels, 4 * out_channels, 1), nn.PixelShuffle(2))
        self.conv = conv(out_channels, out_channels)
        self.upsample = nn.Sequential(conv(channels, 4 * out_channels, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        branch = F.leaky_relu(self.subpel_conv(x), 0.01)
        return F.leaky_relu(self.conv(branch), 0.1) + self.upsample(x)


class Bottleneck(nn.Module):
    """Residual block whose 3 x 3 convolution works on half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(channels, half, 1), nn.GELU(), conv(half, half), nn.GELU(), conv(half, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def bottlenecks(channels: int) -> list[nn.Module]:
    """Three bottleneck blocks, as many as there are everywhere."""
    return [Bottleneck(channels) for _ in range(3)]


class Modulation(nn.Module):
    """Scales and shifts `(B, C, h, w)` features by maps computed from side information `(B, P, h, w)`.

    Spatial feature transform (Wang et al., CVPR 2018).
    """

    def __init__(self, channels: int, side_channels: int, kernel: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(conv(side_channels, SHARED_WIDTH, kernel), nn.LeakyReLU(0.2))
        self.mlp_gamma = conv(SHARED_WIDTH, channels, kernel)
        self.mlp_beta = conv(SHARED_WIDTH, channels, kernel)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        shared = self.mlp_shared(side)
        return x * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class ModulatedResidual(nn.Module):
    """Residual block of two convolutions, each after a modulation by the side information."""

    def __init__(self, channels: int, side_channels: int, kernel: int) -> None:
        super().__init__()
        self.norm_0 = Modulation(channels, side_channels, kernel)
        self.conv_0 = conv(channels, channels)
        self.norm_1 = Modulation(channels, side_channels, kernel)
        self.conv_1 = conv(channels, channels)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        branch = self.conv_0(F.leaky_relu(self.norm_0(x, side), 0.2))
        branch = self.conv_1(F.leaky_relu(self.norm_1(branch, side), 0.2))
        return x + branch


def side_branch(first: nn.Module, channels: int) -> nn.Sequential:
    """`first`, GELU, 1 x 1 convolution: how side information goes from one resolution to the next."""
    return nn.Sequential(first, nn.GELU(), conv(channels, channels, 1))


def side_fusion(channels: int, side_channels: int) -> nn.Sequential:
    """Side information `(B, P, h, w)` out of the `channels` of several joined sources."""
    wide, middle = 4 * side_channels, 2 * side_channels
    return nn.Sequential(conv(channels, wide), nn.GELU(), conv(wide, middle), nn.GELU(), conv(middle, side_channels))
