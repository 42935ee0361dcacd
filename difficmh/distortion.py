"""How far a picture is from its original, differentiable: what lambda weighs against bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from pytorch_msssim import ms_ssim
from torch import Tensor

from difficmh.layers import full_precision

MS_SSIM_WEIGHT = 1300.0
"""1 - MS-SSIM counts as much as this squared error of 8-bit values: the ratio of CompressAI's lambdas for both."""

MSE_SHARE = 0.08
"""Of squared error in the distortion, where nothing else is said; the rest is MS-SSIM."""

MEANS_WEIGHT = 0.5
"""Of the squared error of means in the distortion, where nothing else is said: MS-SSIM hardly minds when the colour of
a whole sky drifts."""

MEANS_BLOCK = 16
"""Pixels a side of the blocks whose means are compared."""

MS_SSIM_SIDE = 161
"""The shortest side in pixels on which MS-SSIM is defined: five scales under a window of 11 pixels."""


@dataclass(frozen=True)
class Distortion:
    """How far pictures are from their originals, `(B,)` each: squared errors of 8-bit values, of pixels and of means
    over blocks of 16 x 16 pixels, and MS-SSIM in [0, 1]."""

    mse: Tensor
    means: Tensor
    ms_ssim: Tensor

    def mixed(self, mse_share: float = MSE_SHARE, means: float = MEANS_WEIGHT) -> Tensor:
        """What lambda weighs, in units of squared error, `(B,)`: squared error and 1 - MS-SSIM, that of means beside.

        `mse_share` in [0, 1] is that of squared error, the rest is MS-SSIM; `means` is the weight of means.
        """
        return mse_share * self.mse + (1 - mse_share) * MS_SSIM_WEIGHT * (1 - self.ms_ssim) + means * self.means


def distortion(decoded: Tensor, images: Tensor) -> Distortion:
    """Of `(B, 3, H, W)` images in [0, 1] of over 160 pixels a side."""
    with full_precision(images):
        decoded = decoded.float()
        similarity = ms_ssim(decoded, images, data_range=1.0, size_average=False)
        return Distortion(squared_error(decoded, images), mean_error(decoded, images), similarity)


def squared_error(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of 8-bit values, `(B,)`, of `(B, 3, H, W)` images in [0, 1]."""
    return (255 * (decoded - images)).square().flatten(1).mean(1)


def mean_error(decoded: Tensor, images: Tensor) -> Tensor:
    """Squared error of the means of blocks of 16 x 16 pixels, `(B,)`, 8-bit values, of `(B, 3, H, W)` images in [0, 1]
    of at least 16 pixels a side; what is left of a block at an edge does not count."""
    return (255 * F.avg_pool2d(decoded - images, MEANS_BLOCK)).square().flatten(1).mean(1)
