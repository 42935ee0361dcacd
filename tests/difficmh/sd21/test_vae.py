"""The autoencoder's shapes, memory switches and refusals, on a small random network."""

from __future__ import annotations

import pytest
import torch

from difficmh.sd21.vae import LatentAutoencoder, VaeConfig


@pytest.fixture(scope="module")
def autoencoder() -> LatentAutoencoder:
    torch.manual_seed(0)
    return LatentAutoencoder(VaeConfig(widths=(32,) * 4, blocks_per_level=1, tile=64)).eval().requires_grad_(False)


def image(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_shapes(autoencoder: LatentAutoencoder) -> None:
    latent = autoencoder.encode(image(64, 32))
    assert latent.shape == (1, 4, 8, 4)
    assert autoencoder.decode(latent).shape == (1, 3, 64, 32)


def test_a_sample_scatters_around_the_mean(autoencoder: LatentAutoencoder) -> None:
    mean = autoencoder.encode(image(64, 64))
    assert torch.equal(autoencoder.encode(image(64, 64), noise=torch.zeros_like(mean)), mean)
    up, down = (autoencoder.encode(image(64, 64), noise=torch.full_like(mean, sign)) for sign in (1.0, -1.0))
    torch.testing.assert_close((up + down) / 2, mean)
    assert not torch.allclose(up, mean)


def test_slicing_changes_nothing_and_tiling_little(autoencoder: LatentAutoencoder) -> None:
    images = image(128, 64, count=2)
    latent = autoencoder.encode(images)
    whole = autoencoder.decode(latent)
    autoencoder.save_memory(slicing=True)
    torch.testing.assert_close(autoencoder.decode(latent), whole)
    autoencoder.save_memory(tiling=True)
    tiled = autoencoder.decode(latent)
    autoencoder.save_memory()
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    torch.testing.assert_close(autoencoder.decode(latent), whole)


def test_sizes_that_do_not_divide_are_refused(autoencoder: LatentAutoencoder) -> None:
    with pytest.raises(ValueError, match="no multiple of 8"):
        autoencoder.encode(image(60, 64))
    with pytest.raises(ValueError, match="latents of 1/8"):
        VaeConfig(widths=(32, 32))
