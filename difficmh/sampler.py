"""Noise schedule and deterministic sampler of the diffusion decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 0.00085, 0.0120
"""Stable Diffusion's schedule, linear in the square root of beta (diffusers calls it `scaled_linear`)."""

Estimate = Callable[[Tensor, int], Tensor]
"""`(x_t, t)` to the estimate of the clean latent x0."""


@cache
def alphas_cumprod() -> NDArray[np.float64]:
    """alpha_bar of each of the 1000 training steps; read-only."""
    betas = np.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, TRAIN_STEPS, dtype=np.float64) ** 2
    products = np.cumprod(1 - betas)
    products.flags.writeable = False
    return products


@cache
def _alphas_cumprod_on(device: torch.device) -> Tensor:
    """Copied there once: a copy to a GPU waits until the GPU has done all that was asked of it before."""
    with torch.inference_mode(False):  # whose tensors training could not use
        return torch.tensor(alphas_cumprod(), device=device)


def signal_and_noise(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Their shares at `(B,)` steps: sqrt(alpha_bar) and sqrt(1 - alpha_bar), each `(B, 1, 1, 1)` float32."""
    alpha_bar = _alphas_cumprod_on(timesteps.device)[timesteps][:, None, None, None]
    return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()


def noised(latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t of clean latents and normal noise, `(B, C, h, w)` each, at `(B,)` steps."""
    signal, spread = signal_and_noise(timesteps)
    return signal * latent + spread * noise


def spaced_timesteps(steps: int) -> list[int]:
    """Ascending training steps of a sampler with `steps` steps; a single step is the last one, pure noise.

    Raises ValueError for a number that is not in 1..1000.
    """
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"steps must be in 1..{TRAIN_STEPS}, not {steps}")
    if steps == 1:
        return [TRAIN_STEPS - 1]
    return [round(k * (TRAIN_STEPS - 1) / (steps - 1)) for k in range(steps)]


def sample(estimate: Estimate, noise: Tensor, steps: int) -> Tensor:
    """Deterministic DDIM sampling (Song et al., ICLR 2021) from `noise` in `steps` estimates of x0.

    With one step the result is the estimate from pure noise. Raises ValueError as `spaced_timesteps`.
    """
    alpha_bar = alphas_cumprod()
    timesteps = spaced_timesteps(steps)
    x = noise
    for timestep, lower in pairwise(reversed(timesteps)):
        a, s = alpha_bar[timestep] ** 0.5, (1 - alpha_bar[timestep]) ** 0.5
        x0 = estimate(x, timestep)
        direction = (x - a * x0) / s
        b = alpha_bar[lower]
        x = float(b**0.5) * x0 + float((1 - b) ** 0.5) * direction
    return estimate(x, timesteps[0])
