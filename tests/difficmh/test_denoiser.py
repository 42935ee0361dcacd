"""What the denoiser learns is what it is used for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difficmh.denoiser import Denoiser
from difficmh.sampler import noised
from tests.difficmh.tiny_capsule import CONFIG

TIMESTEPS = torch.tensor([0, 400, 999])


@pytest.mark.parametrize("guided", [False, True])
def test_whoever_meets_the_target_finds_the_clean_latent(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Denoiser(CONFIG.latent_channels, CONFIG.denoiser)
    latent, noise, other = torch.randn(3, 3, CONFIG.latent_channels, 4, 4)
    guide = other if guided else None
    target = denoiser.target(latent, noise, TIMESTEPS, guide)
    monkeypatch.setattr(denoiser, "forward", lambda *_: target)
    x_t = noised(latent, noise, TIMESTEPS)
    found = denoiser.clean_estimate(x_t, TIMESTEPS, torch.zeros(3, 3), guide)
    torch.testing.assert_close(found, latent, atol=1e-5, rtol=1e-5)


def test_an_untrained_denoiser_returns_the_guide_where_nothing_else_is_left() -> None:
    """Pure noise still carries alpha_bar = 0.5 % of the signal's place."""
    denoiser = Denoiser(CONFIG.latent_channels, CONFIG.denoiser)
    guide: Tensor = torch.randn(1, CONFIG.latent_channels, 4, 4)
    found = denoiser.clean_estimate(torch.zeros_like(guide), TIMESTEPS[2:], torch.zeros(1, 3), guide)
    torch.testing.assert_close(found, guide, atol=0, rtol=0.01)
