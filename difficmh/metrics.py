"""How many bits, and how close to the original: the measures that every evaluation uses.

Images are `(H, W, 3)` uint8 arrays; original and decoded have the same shape, else ValueError.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_msssim import ms_ssim
from torch import Tensor

from difficmh.distortion import MS_SSIM_SIDE

IDENTICAL_DB = 100.0
"""What the measures in decibels give at most, identical images included, so that means stay finite."""

SSIMULACRA2_SIDE = 8
"""The shortest side in pixels that its package takes."""


def bits_per_pixel(stored_bytes: int, height: int, width: int) -> float:
    """Bits of the stored file, headers included, per pixel of the original."""
    return 8 * stored_bytes / (height * width)


def psnr(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio over all RGB samples together, in dB."""
    _check_pair(original, decoded)
    difference = original.astype(np.float32) - decoded.astype(np.float32)
    error = float(np.mean(np.square(difference), dtype=np.float64))
    return _decibels(error / 255**2)


def ms_ssim_db(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Multi-scale structural similarity of the RGB channels as -10 log10(1 - MS-SSIM), in dB.

    Sides under 161 pixels are continued by mirror images up to that size, the same for both images.
    """
    _check_pair(original, decoded)
    similarity = ms_ssim(_batch_of_one(original), _batch_of_one(decoded), data_range=255.0)
    return _decibels(1 - float(similarity))


def ssimulacra2(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """SSIMULACRA 2 score: 100 for identical images, 90 visually lossless, 50 medium, below 0 very bad quality.

    Sides under 8 pixels are continued by mirror images. Needs the package `ssimulacra2`; seconds per megapixel.
    """
    from ssimulacra2 import compute_ssimulacra2

    _check_pair(original, decoded)
    return float(compute_ssimulacra2(_png(original), _png(decoded)))


def _check_pair(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> None:
    if original.shape != decoded.shape or original.dtype != np.uint8 or decoded.dtype != np.uint8:
        raise ValueError(
            f"original {original.shape} {original.dtype} and decoded {decoded.shape} {decoded.dtype} are not a pair"
        )


def _decibels(fraction: float) -> float:
    if fraction <= 10 ** (-IDENTICAL_DB / 10):
        return IDENTICAL_DB
    return -10 * math.log10(fraction)


def _batch_of_one(image: NDArray[np.uint8]) -> Tensor:
    """`(1, 3, H, W)` float32 in 0..255."""
    return torch.from_numpy(_mirrored(image, MS_SSIM_SIDE)).permute(2, 0, 1)[None].float()


def _png(image: NDArray[np.uint8]) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(_mirrored(image, SSIMULACRA2_SIDE)).save(file, "png", compress_level=0)
    file.seek(0)
    return file


def _mirrored(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width, _ = image.shape
    extra = ((0, max(side - height, 0)), (0, max(side - width, 0)), (0, 0))
    return np.pad(image, extra, mode="symmetric")
