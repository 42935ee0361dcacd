"""The Karhunen–Loève start of the transforms: a working transform codec before the first training step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from difficmh.cdf_tables import SCALE_MIN, SCALE_STEP, SCALES
from difficmh.model import CodecModel
from difficmh.tiling import LATENT_STRIDE, Y_STRIDE
from difficmh.training.data import CROP, CropSource

Y_UNIT = 40.0
"""One unit of y before the gains, in orthonormal coefficients of 8-bit pixel values."""


def block_statistics(source: CropSource, block: int, batches: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Eigenvectors `(D, D)` in rows, by falling power, of `block`² RGB blocks, and root mean squares along them `(D,)`.

    About mid-grey, which is 0 to the networks: the mean is not taken off.
    """
    size = 3 * block**2
    covariance = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    for _ in range(batches):
        images, _ = source.batch(16, CROP, generator)
        vectors = F.unfold(255 * (images.cpu() - 0.5), block, stride=block).transpose(1, 2).reshape(-1, size)
        covariance += (vectors.T @ vectors).double()
        count += len(vectors)
    squares, vectors = torch.linalg.eigh(covariance / count)
    return vectors.flip(1).T.float(), squares.flip(0).clamp(min=0).sqrt().float()


@torch.no_grad()
def initialize(model: CodecModel, source: CropSource, seed: int, batches: int = 40) -> None:
    """Sets transforms, gains and entropy biases of `model` from the statistics of the training images."""
    generator = torch.Generator().manual_seed(seed)
    channels, latent = model.config.entropy.channels, model.config.latent_channels
    basis_8, deviation_8 = block_statistics(source, LATENT_STRIDE, batches, generator)
    basis_16, deviation_16 = block_statistics(source, Y_STRIDE, batches, generator)
    model.autoencoder.basis.weight.copy_(basis_8[:latent].view(latent, 3, LATENT_STRIDE, LATENT_STRIDE))
    model.autoencoder.get_buffer("deviation").copy_(deviation_8[:latent])
    for decoder in (model.autoencoder.decoder, model.g_s.decoder):
        decoder.basis_t.weight.copy_(basis_8[:latent].T[:, :, None, None])
        decoder.get_buffer("deviation").copy_(deviation_8[:latent])
    basis_y = basis_16[:channels].view(channels, 3, Y_STRIDE, Y_STRIDE)
    model.g_a.basis.weight.copy_(basis_y / Y_UNIT)
    model.g_s.basis_t.weight.copy_(_y_to_latent(model, basis_y))
    log_gains = torch.tensor([_log_gain(weight) for weight in model.config.lambdas])
    model.g_a.log_gain.copy_(log_gains[:, None].expand(-1, channels))
    model.g_s.log_gain.copy_(-model.g_a.log_gain)
    deviations = deviation_16[:channels] / Y_UNIT * log_gains[:, None].exp()
    index = torch.log(deviations.clamp(min=SCALE_MIN) / SCALE_MIN) / SCALE_STEP
    model.entropy.quality_bias[:, 1].copy_(index.clamp(1, SCALES - 1))


def _log_gain(weight: float) -> float:
    """Gain for a distortion weight: the uniform quantiser's step at high rate is sqrt(12 * 0.72 / lambda)."""
    return math.log(Y_UNIT / math.sqrt(12 * 0.72 / weight))


def _y_to_latent(model: CodecModel, basis_y: Tensor) -> Tensor:
    """Weights `(4 C, M, 1, 1)` that map y to the whitened latent of its four 8 x 8 blocks, in pixel shuffle order."""
    latent = F.conv2d(basis_y, model.autoencoder.basis.weight, stride=LATENT_STRIDE) * Y_UNIT
    latent = latent / model.autoencoder.get_buffer("deviation")[:, None, None]
    return F.pixel_unshuffle(latent, 2).squeeze((2, 3)).T[:, :, None, None]
