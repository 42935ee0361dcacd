"""Schedule and trajectories of the reference sampler equal the official ones."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from difficmh import sampler
from difficmh.sd21.denoiser import Conditioning, noise_model
from difficmh.sd21.reference_sampler import spaced_process
from difficmh.sd21.samplers import draw
from tests.difficmh.parity_fixtures import facts as parity_facts
from tests.difficmh.parity_fixtures import needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import autoencoder, denoiser, largest_difference

pytestmark = needs_parity

RUNS = ["run_10_cfg1", "run_10_cfg5", "run_50_cfg5"]
OFFICIAL_NAMES = {
    "alphas_cumprod": "alphas_cumprod",
    "betas": "betas",
    "recip": "sqrt_recip_alphas_cumprod",
    "recip_minus_1": "sqrt_recipm1_alphas_cumprod",
    "mean_x0": "posterior_mean_coef1",
    "mean_x": "posterior_mean_coef2",
    "variance": "posterior_variance",
}


@cache
def numbers() -> dict[str, Tensor]:
    return tensors("sampler")


def test_the_schedule() -> None:
    found = sampler.alphas_cumprod()
    assert len(found) == parity_facts("sampler")["num_timesteps"]
    np.testing.assert_allclose(found, numbers()["full.alphas_cumprod"], rtol=1e-12)


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 1000])
def test_the_spaced_process(steps: int) -> None:
    process = spaced_process(steps)
    assert process.timesteps.tolist() == numbers()[f"s{steps}.timesteps"].tolist()
    compared = 0
    for field in dataclasses.fields(process)[1:]:
        official = numbers().get(f"s{steps}.{OFFICIAL_NAMES[field.name]}")
        if official is not None:
            np.testing.assert_allclose(getattr(process, field.name), official, rtol=1e-12, atol=1e-15)
            compared += 1
    assert compared == (1 if steps == 1000 else len(OFFICIAL_NAMES))


def toy(x: Tensor, timesteps: Tensor, context: Tensor, guide: Tensor) -> Tensor:
    """The fixture's noise model; its conditioning is a latent in the place of the text."""
    return torch.tanh(0.7 * x + 0.3 * context) * (0.6 + 0.4 * timesteps[:, None, None, None] / 1000)


@pytest.mark.parametrize("run", RUNS)
def test_trajectories(run: str) -> None:
    steps, scale = (parity_facts("sampler")["runs"][run][key] for key in ("steps", "cfg_scale"))
    x, noises = numbers()["x_T"], numbers()[f"{run}.noises"]
    given = Conditioning(guide=x, context=numbers()["cond"], unconditional=numbers()["uncond"], scale=scale)
    descending = spaced_process(steps).timesteps[::-1].tolist()
    states: list[Tensor] = []
    estimate = noise_model(toy, given)

    def watch(x_t: Tensor, t: int) -> Tensor:
        states.append(x_t)
        return estimate(x_t, t)

    # States reach 50, where the official run's own float32 rounding is 4e-5 away from float64.
    x0 = draw("ddpm", watch, x, lambda t: noises[descending.index(t)], steps)
    torch.testing.assert_close(x0, numbers()[f"{run}.x0"], atol=1e-5, rtol=1e-6)
    trajectory = numbers().get(f"{run}.trajectory")
    if trajectory is not None:
        torch.testing.assert_close(torch.stack([*states[1:], x0]), trajectory, atol=1e-5, rtol=1e-6)


@torch.inference_mode()
def test_from_guide_latent_to_picture() -> None:
    """Guidance, UNet with control, sampler and autoencoder together, with the end-to-end fixture's guide latent."""
    given, settings = tensors("e2e_small_io"), parity_facts("e2e_small")
    steps = settings["steps"]
    conditioning = Conditioning(
        given["c_latent"], given["context_cond"], given["context_uncond"], scale=settings["cfg_scale"]
    )
    descending = spaced_process(steps).timesteps[::-1].tolist()
    estimate = noise_model(denoiser(settings["control"]), conditioning)
    latent = draw("ddpm", estimate, given["x_T"], lambda t: given["noises"][descending.index(t)], steps)
    assert largest_difference(latent, given["latent"]) < 5e-3
    assert largest_difference(2 * autoencoder().decode(latent) - 1, given["decoded"]) < 1e-4
