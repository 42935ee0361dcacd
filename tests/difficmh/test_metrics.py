"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from difficmh.metrics import IDENTICAL_DB, bits_per_pixel, ms_ssim_db, psnr, ssimulacra2


def photo(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 5.0) + 50 * np.cos(columns / 7.0)
    return np.stack([waves, waves[::-1], 255 - waves], axis=-1).astype(np.uint8)


def noisy(image: NDArray[np.uint8], strength: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(-strength, strength + 1, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_bits_per_pixel_counts_stored_bytes_over_original_pixels() -> None:
    assert bits_per_pixel(100, height=20, width=40) == 1.0


def test_psnr_of_a_constant_error() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    assert psnr(image, image + np.uint8(10)) == pytest.approx(28.1308, abs=1e-4)


def test_psnr_does_not_wrap_around() -> None:
    assert psnr(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)) == 0


@pytest.mark.parametrize("metric", [psnr, ms_ssim_db])
def test_identical_images_give_a_finite_maximum(metric) -> None:  # type: ignore[no-untyped-def]
    assert metric(photo(40, 50), photo(40, 50)) == IDENTICAL_DB


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (160, 161), (200, 180)])
def test_ms_ssim_handles_every_size_and_falls_with_noise(shape: tuple[int, int]) -> None:
    image = photo(*shape)
    assert 0 < ms_ssim_db(image, noisy(image, 40)) < ms_ssim_db(image, noisy(image, 8)) < IDENTICAL_DB


def test_ms_ssim_in_decibels_agrees_with_the_plain_value() -> None:
    torch = pytest.importorskip("torch")
    from pytorch_msssim import ms_ssim

    image, other = photo(180, 170), noisy(photo(180, 170), 20)
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None].double() for x in (image, other))
    assert 1 - 10 ** (-ms_ssim_db(image, other) / 10) == pytest.approx(ms_ssim(a, b, data_range=255.0).item(), abs=1e-5)


def test_ssimulacra2_ranks_images() -> None:
    pytest.importorskip("ssimulacra2")
    image = photo(64, 48)
    assert ssimulacra2(image, image) == pytest.approx(100, abs=0.1)
    assert ssimulacra2(image, noisy(image, 30)) < ssimulacra2(image, noisy(image, 4)) < 100
    assert np.isfinite(ssimulacra2(photo(1, 1), photo(1, 1)))


def test_images_of_different_shapes_are_no_pair() -> None:
    with pytest.raises(ValueError, match="not a pair"):
        psnr(photo(4, 5), photo(5, 4))
