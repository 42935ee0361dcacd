"""The autoencoder equals the official one."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from difficmh.sd21.vae import LatentAutoencoder
from tests.difficmh.parity_fixtures import needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import autoencoder, largest_difference

pytestmark = needs_parity

TOLERANCE = 2e-5


@cache
def model() -> LatentAutoencoder:
    return autoencoder()


@cache
def numbers() -> dict[str, Tensor]:
    return tensors("vae_small_io")


@torch.inference_mode()
def test_the_posterior() -> None:
    posterior = model().vae.encode(numbers()["x"]).latent_dist
    # Unscaled moments reach 13 and so have a relative tolerance too.
    torch.testing.assert_close(posterior.parameters, numbers()["moments"], atol=TOLERANCE, rtol=TOLERANCE)
    assert largest_difference(posterior.mode(), numbers()["mode"]) < TOLERANCE


@torch.inference_mode()
def test_image_to_latent() -> None:
    assert largest_difference(model().encode((numbers()["x"] + 1) / 2), numbers()["latent"]) < TOLERANCE


@torch.inference_mode()
def test_latent_to_image() -> None:
    assert largest_difference(2 * model().decode(numbers()["z"]) - 1, numbers()["decoded"]) < TOLERANCE


@torch.inference_mode()
def test_a_sample_of_the_posterior() -> None:
    training = tensors("train_loss_io")
    image = training["image01"].permute(0, 3, 1, 2)
    found = model().encode(image, noise=training["posterior_noise"])
    # Random weights give standard deviations up to 150, from the exponential of a logarithm.
    torch.testing.assert_close(found, training["x_start"], atol=TOLERANCE, rtol=TOLERANCE)
