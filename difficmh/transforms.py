"""The latent codec's transforms: image → y → preview, and y → z.

Names follow the compression literature: analysis g_a, synthesis g_s, hyper analysis h_a (Ballé et al., ICLR 2018).
Both sides start as the KLT of 16 x 16 blocks; the deep networks are residual branches whose last layer starts at zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.autoencoder import BlockDecoder
from difficmh.config import CodecConfig
from difficmh.layers import QualityModulation, Upsample, blocks, full_precision, zero_init
from difficmh.tiling import LATENT_STRIDE, Y_STRIDE


class AnalysisTransform(nn.Module):
    """g_a: `(B, 3, H, W)` image in [0, 1] and `(B,)` quality index to y, `(B, M, H/16, W/16)`, in steps."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        (eighth, sixteenth), depths = config.transforms.analysis_widths, config.transforms.analysis_depths
        channels = config.entropy.channels
        self.basis = nn.Conv2d(3, channels, Y_STRIDE, stride=Y_STRIDE, bias=False)
        self.enter = nn.Conv2d(3 * LATENT_STRIDE**2, eighth, 3, padding=1)
        self.modulation = QualityModulation(config.qualities, eighth)
        self.body_8 = blocks(eighth, depths[0])
        self.down = nn.Conv2d(eighth, sixteenth, 3, stride=2, padding=1)
        self.body_16 = blocks(sixteenth, depths[1])
        self.leave = zero_init(nn.Conv2d(sixteenth, channels, 3, padding=1))
        self.log_gain = nn.Parameter(torch.zeros(config.qualities, channels))

    def forward(self, image: Tensor, quality_index: Tensor) -> Tensor:
        pixels = 255 * (image - 0.5)
        deep = self.modulation(self.enter(F.pixel_unshuffle(pixels / 64, LATENT_STRIDE)), quality_index)
        deep = self.leave(self.body_16(self.down(self.body_8(deep))))
        with full_precision(image):
            linear = self.basis(pixels.float())
        return (linear + deep) * torch.exp(self.log_gain[quality_index, :, None, None])


class SynthesisTransform(nn.Module):
    """g_s: y_hat, `(B, M, H/16, W/16)`, and quality index to the preview, `(B, 3, H, W)`, near [0, 1]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        (eighth, sixteenth), depths = config.transforms.synthesis_widths, config.transforms.synthesis_depths
        channels, latent = config.entropy.channels, config.latent_channels
        self.basis_t = nn.Conv2d(channels, 4 * latent, 1, bias=False)
        self.enter = nn.Conv2d(channels, sixteenth, 3, padding=1)
        self.modulation = QualityModulation(config.qualities, sixteenth)
        self.body_16 = blocks(sixteenth, depths[1])
        self.up = Upsample(sixteenth, eighth)
        self.body_8 = blocks(eighth, depths[0])
        self.leave = zero_init(nn.Conv2d(eighth, latent, 3, padding=1))
        self.log_gain = nn.Parameter(torch.zeros(config.qualities, channels))
        self.decoder = BlockDecoder(latent, config.transforms.decoder_widths, config.transforms.decoder_depths)

    def forward(self, y_hat: Tensor, quality_index: Tensor) -> Tensor:
        y = y_hat * torch.exp(self.log_gain[quality_index, :, None, None])
        deep = self.body_16(self.modulation(self.enter(y / 8), quality_index))
        with full_precision(y):
            linear = F.pixel_shuffle(self.basis_t(y.float()), 2)
        image: Tensor = self.decoder(linear + self.leave(self.body_8(self.up(deep))))
        return image


class HyperAnalysis(nn.Module):
    """h_a: y, `(B, M, H/16, W/16)`, to z, `(B, N, H/64, W/64)`."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.entropy.hyper_width
        self.layers = nn.Sequential(
            nn.Conv2d(config.entropy.channels, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, config.entropy.hyper_channels, 4, stride=2, padding=1),
        )

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(y)
