"""What single losses see and do not see."""

from __future__ import annotations

import pytest
import torch

from difficmh.training.losses import grid_error


@pytest.mark.parametrize("period", [8, 16, 32])
def test_a_pattern_of_the_grid_counts_and_texture_hardly_does(period: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 192, 192, generator=generator)
    pattern = (0.02 * torch.randn(1, 3, period, period, generator=generator)).repeat(1, 1, 192 // period, 192 // period)
    texture = 0.02 * torch.randn(1, 3, 192, 192, generator=generator)
    seen = [float(grid_error(images + residual, images)) for residual in (pattern, texture)]
    assert seen[0] > 2 * seen[1]


def test_the_error_of_a_pattern_is_its_mean_size() -> None:
    tile = 0.02 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 3, 192, 192)
    seen = float(grid_error(images + tile.repeat(1, 1, 24, 24), images))
    assert seen == pytest.approx(float((tile - tile.mean()).abs().mean()), rel=0.2)


def test_errors_of_low_frequencies_are_none_of_the_grid() -> None:
    images = torch.zeros(1, 3, 64, 64)
    ramp = torch.linspace(0, 0.2, 64).expand(1, 3, 64, 64)
    assert float(grid_error(images + 0.1, images)) == pytest.approx(0, abs=1e-6)
    assert float(grid_error(images + ramp, images)) < 0.001
