"""Autoencoder of `lite`: image ↔ the latent in which diffusion works.

    image (3, H, W) ──KLT of 8 x 8 blocks──► latent (C, H/8, W/8) ──transpose──► + ──► image
                                                     └── residual branch, 1/8 → 1/2 ──┘

The latent is a whitened Karhunen–Loève transform, so each channel has unit variance over photographs, errors in the
latent are errors in the picture, and training starts from a working transform. The transform itself is never trained:
whatever learns in the latent space can rely on it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.layers import Upsample, blocks, full_precision, zero_init
from difficmh.tiling import LATENT_STRIDE


class BlockDecoder(nn.Module):
    """Whitened coefficients of 8 x 8 blocks, `(B, C, H/8, W/8)`, to an image, `(B, 3, H, W)`.

    The transposed transform and a deep residual branch whose last layer starts at zero.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int], depths: tuple[int, int, int]) -> None:
        super().__init__()
        eighth, quarter, half = widths
        self.basis_t = nn.Conv2d(channels, 3 * LATENT_STRIDE**2, 1, bias=False)
        self.register_buffer("deviation", torch.ones(channels))
        self.refine = nn.Sequential(
            nn.Conv2d(channels, eighth, 3, padding=1),
            blocks(eighth, depths[0]),
            Upsample(eighth, quarter),
            blocks(quarter, depths[1]),
            Upsample(quarter, half),
            blocks(half, depths[2]),
            zero_init(nn.Conv2d(half, 12, 3, padding=1)),
            nn.PixelShuffle(2),
        )

    def forward(self, coefficients: Tensor) -> Tensor:
        return self.linear(coefficients) + self.refine(coefficients)

    def linear(self, coefficients: Tensor) -> Tensor:
        """The image by the transposed transform alone."""
        with full_precision(coefficients):
            values = coefficients.float() * self.get_buffer("deviation")[:, None, None]
            return F.pixel_shuffle(self.basis_t(values), LATENT_STRIDE) / 255 + 0.5


class Autoencoder(nn.Module):
    """`encode` and `decode` between `(B, 3, H, W)` float images in [0, 1] and `(B, C, H/8, W/8)` latents.

    H and W must be multiples of 8. Decoded images may leave [0, 1] slightly; callers clamp.
    """

    def __init__(self, latent_channels: int, widths: tuple[int, int, int], depths: tuple[int, int, int]) -> None:
        super().__init__()
        self.basis = nn.Conv2d(3, latent_channels, LATENT_STRIDE, stride=LATENT_STRIDE, bias=False)
        self.register_buffer("deviation", torch.ones(latent_channels))
        self.decoder = BlockDecoder(latent_channels, widths, depths)

    def encode(self, image: Tensor) -> Tensor:
        """The latent of an image, unit variance per channel over photographs."""
        with full_precision(image):
            return self.basis(255 * (image.float() - 0.5)) / self.get_buffer("deviation")[:, None, None]

    def decode(self, latent: Tensor) -> Tensor:
        """The image of a latent."""
        image: Tensor = self.decoder(latent)
        return image
