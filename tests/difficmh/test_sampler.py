"""Schedule and sampling."""

from __future__ import annotations

import pytest
import torch

from difficmh import sampler


def test_the_schedule_is_stable_diffusions() -> None:
    alpha_bar = sampler.alphas_cumprod()
    assert alpha_bar.shape == (1000,)
    assert alpha_bar[0] == pytest.approx(1 - 0.00085)
    assert alpha_bar[-1] == pytest.approx(0.0046597, rel=1e-3)


def test_spaced_timesteps_reach_from_end_to_end() -> None:
    assert sampler.spaced_timesteps(1) == [999]
    assert sampler.spaced_timesteps(5) == [0, 250, 500, 749, 999]
    with pytest.raises(ValueError, match="steps"):
        sampler.spaced_timesteps(0)


def test_sampling_with_a_perfect_estimate_ends_there() -> None:
    clean = torch.randn(1, 4, 3, 3)
    for steps in (1, 2, 10):
        assert torch.allclose(sampler.sample(lambda x, t: clean, torch.randn(1, 4, 3, 3), steps), clean)


def test_the_schedule_is_made_once_and_nobody_can_change_it() -> None:
    assert sampler.alphas_cumprod() is sampler.alphas_cumprod()
    with pytest.raises(ValueError, match="read-only"):
        sampler.alphas_cumprod()[0] = 1


def test_what_decoding_remembers_of_the_schedule_is_of_use_to_training() -> None:
    """Whose gradients go through it, which tensors of inference mode would not allow."""
    sampler._alphas_cumprod_on.cache_clear()
    timesteps, latent = torch.tensor([0, 999]), torch.ones(2, 1, 1, 1, requires_grad=True)
    with torch.inference_mode():
        before = sampler.signal_and_noise(timesteps)
    sampler.noised(latent, latent, timesteps).sum().backward()
    torch.testing.assert_close(latent.grad, before[0] + before[1])
