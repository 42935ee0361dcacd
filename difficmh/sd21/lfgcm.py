"""The latent codec of Diff-ICMH (LFGCM): image and reference latent to y and z, and back to the guide latent.

    image, reference latent ──encoder (g_a)──► y ──hyper_enc (h_a)──► z
    y_hat, z_hat ──f_c, decoder (g_s)──► guide latent c

The reference latent, the autoencoder's latent of the image, helps the analysis alone; the synthesis must do without.
Attribute names are those of the official checkpoints below `preprocess_model.` (arXiv 2511.22549).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.sd21.lfgcm_config import LfgcmConfig
from difficmh.sd21.lfgcm_entropy import LfgcmEntropy, Likelihoods, Prediction
from difficmh.sd21.lfgcm_layers import (
    Down,
    ModulatedResidual,
    Modulation,
    Up,
    bottlenecks,
    conv,
    deconv,
    side_branch,
    side_fusion,
)
from difficmh.tiling import LATENT_STRIDE, Z_STRIDE


class Analysis(nn.Module):
    """g_a: `(B, 3, H, W)` image in [0, 1] and `(B, 4, H/8, W/8)` reference latent to y, `(B, M, H/16, W/16)`."""

    def __init__(self, config: LfgcmConfig) -> None:
        super().__init__()
        first, second, third, last = config.analysis_widths
        side, kernel = config.side_channels, config.side_kernel
        self.sft_1_8 = side_branch(conv(config.latent_channels, side), side)
        self.sft_1_16 = side_branch(conv(side, side, stride=2), side)
        self.sft_1_16_2 = side_branch(conv(side, side), side)
        self.g_a1 = nn.Sequential(
            *(Down(config.image_channels, first), *bottlenecks(first)),
            *(Down(first, second), *bottlenecks(second)),
            *(Down(second, third), *bottlenecks(third)),
        )
        self.g_a1_ref = Modulation(third, side, kernel)
        self.g_a2 = nn.Sequential(Down(third, last), *bottlenecks(last))
        self.g_a2_ref = Modulation(last, side, kernel)
        self.g_a3 = conv(last, last)
        self.g_a4 = ModulatedResidual(last, side, kernel)
        self.g_a5 = ModulatedResidual(last, side, kernel)
        self.g_a6 = conv(last, config.channels)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        side_8 = self.sft_1_8(reference)
        side_16 = self.sft_1_16(side_8)
        side_16b = self.sft_1_16_2(side_16)
        x = self.g_a1_ref(self.g_a1(image), side_8)
        x = self.g_a3(self.g_a2_ref(self.g_a2(x), side_16))
        return self.g_a6(self.g_a5(self.g_a4(x, side_16b), side_16b))


class HyperAnalysis(nn.Module):
    """h_a: y, `(B, M, H/16, W/16)`, and reference latent to z, `(B, N, H/64, W/64)`."""

    def __init__(self, config: LfgcmConfig) -> None:
        super().__init__()
        n, side, kernel = config.hyper_channels, config.side_channels, config.side_kernel
        self.sft_feature = side_branch(conv(config.latent_channels, side, stride=2), side)
        self.sft_feature_h1 = side_fusion(config.channels + side, side)
        self.sft_feature_h2 = side_branch(conv(side, side, stride=2), side)
        self.sft_feature_h3 = side_branch(conv(side, side, stride=2), side)
        self.h_a0 = conv(config.channels, n)
        self.h_a1 = Modulation(n, side, kernel)
        self.h_a3 = conv(n, n, 5, stride=2)
        self.h_a4 = Modulation(n, side, kernel)
        self.h_a6 = conv(n, n, 5, stride=2)
        self.h_a7 = ModulatedResidual(n, side, kernel)
        self.h_a8 = ModulatedResidual(n, side, kernel)
        self.h_a9 = conv(n, n, 1)

    def forward(self, y: Tensor, reference: Tensor) -> Tensor:
        side_16 = self.sft_feature_h1(torch.cat((self.sft_feature(reference), y), dim=1))
        side_32 = self.sft_feature_h2(side_16)
        side_64 = self.sft_feature_h3(side_32)
        x = self.h_a3(F.gelu(self.h_a1(self.h_a0(y), side_16)))
        x = self.h_a6(F.gelu(self.h_a4(x, side_32)))
        return self.h_a9(self.h_a8(self.h_a7(x, side_64), side_64))


class Synthesis(nn.Module):
    """g_s: y_hat, `(B, M, H/16, W/16)`, and f_c's features of z_hat to the guide latent, `(B, 4, H/8, W/8)`."""

    def __init__(self, config: LfgcmConfig) -> None:
        super().__init__()
        n, m, side, kernel = config.hyper_channels, config.channels, config.side_channels, config.side_kernel
        self.sft_feature_gs1 = side_fusion(m + n // 4, side)
        self.sft_feature_gs2 = side_branch(conv(side, side), side)
        self.sft_feature_gs3 = side_branch(deconv(side, side, 3), side)
        self.g_s0 = ModulatedResidual(m, side, kernel)
        self.g_s1 = ModulatedResidual(m, side, kernel)
        self.g_s2 = nn.Sequential(conv(m, n), *bottlenecks(n))
        self.g_s2_ref = Modulation(n, side, kernel)
        self.g_s3 = nn.Sequential(Up(n, n), *bottlenecks(n))
        self.g_s3_ref = Modulation(n, side, kernel)
        self.g_s4 = conv(n, config.latent_channels)

    def forward(self, y_hat: Tensor, features: Tensor) -> Tensor:
        side_16 = self.sft_feature_gs1(torch.cat((features, y_hat), dim=1))
        side_16b = self.sft_feature_gs2(side_16)
        side_8 = self.sft_feature_gs3(side_16b)
        x = self.g_s1(self.g_s0(y_hat, side_16), side_16)
        x = self.g_s2_ref(self.g_s2(x), side_16b)
        return self.g_s4(self.g_s3_ref(self.g_s3(x), side_8))


@dataclass(frozen=True)
class LfgcmOutput:
    """Result of a training pass: guide latent `(B, 4, H/8, W/8)`, what the entropy networks expected, and likelihoods
    of the rounded values and, where asked for, of values with uniform noise."""

    guide: Tensor
    prediction: Prediction
    rounded: Likelihoods
    noisy: Likelihoods | None


class Lfgcm(LfgcmEntropy):
    """The latent codec: transforms around the entropy networks, from which it inherits the coding."""

    def __init__(self, config: LfgcmConfig | None = None) -> None:
        config = config or LfgcmConfig()
        super().__init__(config)
        n = config.hyper_channels
        self.encoder = Analysis(config)
        self.hyper_enc = HyperAnalysis(config)
        self.f_c = nn.Sequential(
            deconv(n, n // 2), nn.GELU(), deconv(n // 2, n // 4), nn.GELU(), deconv(n // 4, n // 4, 3, 1)
        )
        self.decoder = Synthesis(config)

    def analyze(self, image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """y `(B, M, H/16, W/16)` and z `(B, N, H/64, W/64)` of `(B, 3, H, W)` images in [0, 1].

        `reference` `(B, 4, H/8, W/8)` is their scaled autoencoder latent; H and W are multiples of 64. What is coded of
        z is `centre(z)`. Raises ValueError for other sizes.
        """
        height, width = image.shape[-2:]
        expected = (len(image), self.config.latent_channels, height // LATENT_STRIDE, width // LATENT_STRIDE)
        if height % Z_STRIDE or width % Z_STRIDE or tuple(reference.shape) != expected:
            raise ValueError(
                f"images of {height} x {width} with reference latents {tuple(reference.shape)}: "
                f"sides must be multiples of {Z_STRIDE}, latents {expected}"
            )
        y = self.encoder(image, reference)
        return y, self.hyper_enc(y, reference)

    def guide(self, y_hat: Tensor, z_symbols: Tensor) -> Tensor:
        """The guide latent, `(B, 4, 8h, 8w)`, of decoded y `(B, M, 4h, 4w)` and the symbols of z `(B, N, h, w)`."""
        return self.synthesize(y_hat, self.z_hat(z_symbols))

    def synthesize(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """The guide latent of decoded y and z."""
        return self.decoder(y_hat, self.f_c(z_hat))

    def forward(self, image: Tensor, reference: Tensor, *, noisy: bool = False) -> LfgcmOutput:
        """Training's pass, differentiable; inputs as for `analyze`. `noisy` draws uniform noise for the rate's sake."""
        y, z = self.analyze(image, reference)
        prediction = self.predict(y, z)
        guide = self.synthesize(prediction.y_hat, self.quantize_z(z))
        noise = (torch.rand_like(y) - 0.5, torch.rand_like(z) - 0.5) if noisy else None
        return LfgcmOutput(
            guide,
            prediction,
            rounded=self.likelihoods(y, z, prediction),
            noisy=self.likelihoods(y, z, prediction, noise) if noise else None,
        )


def bits_per_pixel(likelihoods: Likelihoods, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of y and of z, scalars, over all pixels of a batch of `height` x `width` (padded) images: the official rate."""
    y, z = likelihoods.bits()
    return y.mean() / (height * width), z.mean() / (height * width)
