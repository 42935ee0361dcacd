"""Samplers by name, on a distribution whose noise estimate is known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from difficmh.noise import NoiseField
from difficmh.sampler import TRAIN_STEPS, alphas_cumprod
from difficmh.sd21.samplers import MOST_STEPS, SAMPLERS, clean_estimate, draw

MEAN, SPREAD = 0.8, 0.3
FIELD = NoiseField((3, 4), 4, slice(0, 24), slice(0, 16), across=16)


def normal_data(x_t: Tensor, t: int) -> Tensor:
    """The best noise estimate for data that is normal with MEAN and SPREAD everywhere."""
    alpha_bar = float(alphas_cumprod()[t])
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    return (x_t - alpha_bar**0.5 * MEAN) * ((1 - alpha_bar) ** 0.5 / variance)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_the_distribution_of_the_data(name: Any) -> None:
    # The reference's small posterior variance makes samples too narrow where steps are few.
    x0 = draw(name, normal_data, FIELD.start(), FIELD.at, 250)
    assert x0.mean() == pytest.approx(MEAN, abs=0.03)
    assert x0.std() == pytest.approx(SPREAD, rel=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_perfect_estimate_is_found_in_any_number_of_steps(name: Any, steps: int) -> None:
    clean = torch.randn(2, 4, 24, 16, generator=torch.Generator().manual_seed(5))

    def estimate(x_t: Tensor, t: int) -> Tensor:
        alpha_bar = float(alphas_cumprod()[t])
        return (x_t - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5

    torch.testing.assert_close(draw(name, estimate, FIELD.start(), FIELD.at, steps), clean, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_one_estimate(name: Any) -> None:
    asked: list[int] = []

    def estimate(x_t: Tensor, t: int) -> Tensor:
        asked.append(t)
        return normal_data(x_t, t)

    draw(name, estimate, FIELD.start(), FIELD.at, 10)
    assert len(asked) == 10
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == TRAIN_STEPS - 1


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ddpm"}))
def test_only_the_reference_adds_noise_on_the_way(name: Any) -> None:
    def no_noise(timestep: int) -> Tensor:
        raise AssertionError("not asked for")

    draw(name, normal_data, FIELD.start(), no_noise, 4)


def test_the_estimate_of_the_noise_and_of_the_latent_agree() -> None:
    clean, noise = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    alpha_bar = float(alphas_cumprod()[400])
    x_t = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise
    torch.testing.assert_close(clean_estimate(x_t, 400, noise), clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_most_steps_that_are_allowed_make_a_sample(name: Any) -> None:
    x0 = draw(name, normal_data, FIELD.start(), FIELD.at, MOST_STEPS[name])
    assert x0.isfinite().all()
    assert x0.mean() == pytest.approx(MEAN, abs=0.03)


def test_unknown_names_and_steps_are_refused() -> None:
    name: Any = "euler"
    with pytest.raises(ValueError, match="not one of ddpm, ddim"):
        draw(name, normal_data, FIELD.start(), FIELD.at, 4)
    for known in SAMPLERS:
        for steps in (0, MOST_STEPS[known] + 1):
            with pytest.raises(ValueError, match="steps"):
                draw(known, normal_data, FIELD.start(), FIELD.at, steps)
