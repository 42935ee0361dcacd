"""The losses of the method: rate, distortion, diffusion and semantic consistency.

`normalized_l2` is one of the paper's model (`sd21/training_losses.py`), which no job trains yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.denoiser import Denoiser
from difficmh.distortion import Distortion, distortion
from difficmh.entropy_model import EntropyOutput
from difficmh.layers import full_precision
from difficmh.model import CodecModel
from difficmh.sampler import TRAIN_STEPS, noised
from difficmh.tiling import LATENT_STRIDE

RATE_BALANCE = 0.2
"""Low rates have small losses; weighting by lambda ** -RATE_BALANCE keeps the shared networks from ignoring them."""

PERIODS = (8, 16, 32)
"""Pixels between cells that the networks treat alike: blocks of the autoencoder, positions of the denoiser's levels."""

NEIGHBORS = 8
"""Cells a side over which a repeated error is averaged, as far as the picture has them."""


@dataclass(frozen=True)
class RateDistortion:
    """Results of one pass: the preview `(B, 3, H, W)`, bits per pixel of each sample `(B,)`, and its distortion."""

    preview: Tensor
    bpp: Tensor
    distortion: Distortion


def quantize(model: CodecModel, images: Tensor, quality: Tensor) -> Tensor:
    """y_hat `(B, M, H/16, W/16)` of `(B, 3, H, W)` images, where its bits do not matter."""
    y, z = model.analyze(images, quality)
    with full_precision(images):
        return model.entropy(y.float(), z.float(), quality).y_hat


def code(model: CodecModel, images: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """y_hat `(B, M, H/16, W/16)` and bits per pixel `(B,)` of `(B, 3, H, W)` images, differentiable."""
    y, z = model.analyze(images, quality)
    with full_precision(images):
        output: EntropyOutput = model.entropy(y.float(), z.float(), quality)
        bits = _rate(model)(y.float(), z.float(), output)
    return output.y_hat, bits / (images.shape[-1] * images.shape[-2])


def _rate(model: CodecModel) -> nn.Module:
    if model.rate is None:
        raise ValueError("the model has no densities: training adds them")
    return model.rate


def rate_distortion(model: CodecModel, images: Tensor, quality: Tensor) -> RateDistortion:
    """One pass through the codec without diffusion. Images must exceed 160 pixels a side for MS-SSIM."""
    y_hat, bpp = code(model, images, quality)
    preview = model.preview(y_hat, quality)
    return RateDistortion(preview, bpp, distortion(preview, images))


def decibels(mse: Tensor) -> Tensor:
    """Mean PSNR of squared errors `(B,)` of 8-bit values."""
    return (10 * torch.log10(255**2 / mse)).mean()


def rate_distortion_loss(bpp: Tensor, distortion: Tensor, lambdas: Tensor, reference: float) -> Tensor:
    """Mean over the batch of bits + lambda * distortion, `(B,)` each; `reference` is the lambda of weight one."""
    balance = (lambdas / reference) ** -RATE_BALANCE
    return (balance * (bpp + lambdas * distortion)).mean()


def grid_error(decoded: Tensor, images: Tensor) -> Tensor:
    """What is wrong in the same way in every cell of a grid, `(B,)`: the residual without its low frequencies, mean
    over neighbouring cells at each place in a cell, absolute, mean over places, neighbourhoods and PERIODS.

    Texture that belongs to a picture averages out; a pattern of the networks' own strides does not. Sides must be
    multiples of 32.
    """
    residual = decoded - images
    smooth = F.avg_pool2d(residual, LATENT_STRIDE + 1, stride=1, padding=LATENT_STRIDE // 2, count_include_pad=False)
    return torch.stack([_repeated(residual - smooth, period) for period in PERIODS]).mean(0)


def _repeated(residual: Tensor, period: int) -> Tensor:
    cells = F.pixel_unshuffle(residual, period)
    height, width = (min(side, NEIGHBORS) for side in cells.shape[-2:])
    together = F.avg_pool2d(cells, (height, width), stride=(height + 1) // 2)
    return together.abs().flatten(1).mean(1)


def diffusion_loss(
    denoiser: Denoiser, latent: Tensor, guide: Tensor | None, tags: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the denoiser's F (see `denoiser.py`) at random steps and noise."""
    timesteps = torch.randint(0, TRAIN_STEPS, (len(latent),), generator=generator).to(latent.device)
    noise = torch.randn(latent.shape, generator=generator).to(latent.device)
    predicted = denoiser(noised(latent, noise, timesteps), timesteps, tags, guide)
    return F.mse_loss(predicted.float(), denoiser.target(latent, noise, timesteps, guide))


def one_step(model: CodecModel, guide: Tensor, tags: Tensor, generator: torch.Generator) -> Tensor:
    """The image of a one-step decode from fresh noise, differentiable; not clamped."""
    timesteps = torch.full((len(guide),), TRAIN_STEPS - 1, device=guide.device)
    noise = torch.randn(guide.shape, generator=generator).to(guide.device)
    return model.draw(model.denoiser.clean_estimate(noise, timesteps, tags, guide))


def semantic_consistency(denoiser: Denoiser, guide: Tensor, latent: Tensor, tags: Tensor) -> Tensor:
    """1 - cosine similarity, per position, of the base UNet's middle features at t = 0 (Diff-ICMH), mean over all."""
    with torch.no_grad():
        original = denoiser.semantic_features(latent, tags).float()
    decoded = denoiser.semantic_features(guide, tags).float()
    return cosine_distance(decoded, original)


def cosine_distance(decoded: Tensor, original: Tensor) -> Tensor:
    """1 - cosine similarity along the channels of two `(B, D, H, W)` feature maps, mean over images and positions.

    Norms below 1e-8 count as 1e-8.
    """
    return (1 - F.cosine_similarity(decoded, original, dim=1, eps=1e-8)).mean()


def normalized_l2(decoded: Tensor, original: Tensor) -> Tensor:
    """Squared distance of the channel vectors of two `(B, D, H, W)` feature maps, each divided by its norm; mean over
    images and positions. Twice `cosine_distance` but for norms below 1e-12, which count as that."""
    difference = F.normalize(decoded, dim=1, eps=1e-12) - F.normalize(original, dim=1, eps=1e-12)
    return difference.square().sum(dim=1).mean()


def semantic_gradient(denoiser: Denoiser, guide: Tensor, latent: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """The semantic consistency loss and its gradient with respect to `guide` alone: the UNet itself must not learn
    to make the features agree."""
    leaf = guide.detach().requires_grad_()
    loss = semantic_consistency(denoiser, leaf, latent, tags)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient
