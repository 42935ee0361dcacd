"""Autoencoder of `lite`: image ↔ the latent in which codec and diffusion work.

    image (3, H, W) ──KLT of 8 x 8 blocks──► latent (C, H/8, W/8) ──transpose──► + ──► image
                                                     └── residual branch, 1/8 → 1/2 ──┘

The latent is a whitened Karhunen–Loève transform, so each channel has unit variance over photographs, errors in the
latent are errors in the picture, and training starts from a working transform.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.layers import Upsample, blocks, full_precision, zero_init

BLOCK = 8


class Autoencoder(nn.Module):
    """`encode` and `decode` between `(B, 3, H, W)` float images in [0, 1] and `(B, C, H/8, W/8)` latents.

    H and W must be multiples of 8. Decoded images may leave [0, 1] slightly; callers clamp.
    """

    def __init__(self, latent_channels: int, widths: tuple[int, int, int], depths: tuple[int, int, int]) -> None:
        super().__init__()
        eighth, quarter, half = widths
        self.basis = nn.Conv2d(3, latent_channels, BLOCK, stride=BLOCK, bias=False)
        self.basis_t = nn.Conv2d(latent_channels, 3 * BLOCK**2, 1, bias=False)
        self.register_buffer("deviation", torch.ones(latent_channels))
        self.refine = nn.Sequential(
            nn.Conv2d(latent_channels, eighth, 3, padding=1),
            blocks(eighth, depths[0]),
            Upsample(eighth, quarter),
            blocks(quarter, depths[1]),
            Upsample(quarter, half),
            blocks(half, depths[2]),
            zero_init(nn.Conv2d(half, 12, 3, padding=1)),
            nn.PixelShuffle(2),
        )

    def encode(self, image: Tensor) -> Tensor:
        """The reference latent, unit variance per channel."""
        with full_precision(image):
            return self.basis(255 * (image.float() - 0.5)) / self._deviation()

    def decode(self, latent: Tensor) -> Tensor:
        """The image of a latent."""
        return self.decode_linear(latent) + self.refine(latent)

    def decode_linear(self, latent: Tensor) -> Tensor:
        """The image by the transposed transform alone."""
        with full_precision(latent):
            coefficients = latent.float() * self._deviation()
            return F.pixel_shuffle(self.basis_t(coefficients), BLOCK) / 255 + 0.5

    def _deviation(self) -> Tensor:
        deviation: Tensor = self.deviation  # type: ignore[assignment]
        return deviation[:, None, None]
