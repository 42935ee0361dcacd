"""How far a picture is from its original, differentiable: what lambda weighs against bits."""

from __future__ import annotations

from pytorch_msssim import ms_ssim
from torch import Tensor

from difficmh.layers import full_precision

MS_SSIM_WEIGHT = 1300.0
"""1 - MS-SSIM counts as much as this squared error of 8-bit values: the ratio of CompressAI's lambdas for both."""

MSE_SHARE = 0.08
"""Of squared error in the distortion, where nothing else is said; the rest is MS-SSIM."""

MS_SSIM_SIDE = 161
"""The shortest side in pixels on which MS-SSIM is defined: five scales under a window of 11 pixels."""


def distortions(decoded: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of 8-bit values and MS-SSIM, `(B,)` each, of `(B, 3, H, W)` images of over 160 pixels a side."""
    with full_precision(images):
        decoded = decoded.float()
        return squared_error(decoded, images), ms_ssim(decoded, images, data_range=1.0, size_average=False)


def squared_error(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of 8-bit values, `(B,)`, of `(B, 3, H, W)` images in [0, 1]."""
    return (255 * (decoded - images)).square().flatten(1).mean(1)


def mixed_distortion(mse: Tensor, similarity: Tensor, mse_share: float) -> Tensor:
    """What lambda weighs: squared error and 1 - MS-SSIM, in units of squared error."""
    return mse_share * mse + (1 - mse_share) * MS_SSIM_WEIGHT * (1 - similarity)
