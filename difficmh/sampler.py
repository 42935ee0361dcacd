"""Noise schedule, noise and samplers of the diffusion decoder.

Everything here is a function of its arguments: the initial noise comes from a counter-based generator seeded by the
stream, so that a bitstream decodes to the same picture everywhere, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 0.00085, 0.0120
"""Stable Diffusion's schedule, linear in the square root of beta (diffusers calls it `scaled_linear`)."""

Estimate = Callable[[Tensor, int], Tensor]
"""`(x_t, t)` to the estimate of the clean latent x0."""


def alphas_cumprod() -> NDArray[np.float64]:
    """alpha_bar of each of the 1000 training steps."""
    betas = np.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, TRAIN_STEPS, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


def rates(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Signal rate sqrt(alpha_bar) and noise rate sqrt(1 - alpha_bar) of `(B,)` steps, each `(B, 1, 1, 1)` float32."""
    alpha_bar = torch.from_numpy(alphas_cumprod()).to(timesteps.device)[timesteps][:, None, None, None]
    return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()


def spaced_timesteps(steps: int) -> list[int]:
    """Ascending training steps of a sampler with `steps` steps; a single step is the last one, pure noise."""
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"steps must be in 1..{TRAIN_STEPS}, not {steps}")
    if steps == 1:
        return [TRAIN_STEPS - 1]
    return [round(k * (TRAIN_STEPS - 1) / (steps - 1)) for k in range(steps)]


def seeded_noise(seed: int, channels: int, rows: slice, columns: slice, across: int) -> Tensor:
    """Standard normal noise `(channels, rows, columns)` float32 on the CPU for part of a latent `across` columns wide.

    Each position of the latent has numbers of its own, whichever part of it is asked for: counters of a Philox
    generator keyed by `seed`, whose raw output NumPy's specification fixes. The Box–Muller transform runs in float64,
    where platforms agree far below float32's precision. `channels` must be a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"noise comes in groups of 4 channels, not {channels}")
    width = columns.stop - columns.start
    lines = [_normal(seed, (row * across + columns.start) * channels, width * channels) for row in _range(rows)]
    noise = np.stack(lines).reshape(len(lines), width, channels)
    return torch.from_numpy(noise).permute(2, 0, 1)


def _range(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _normal(seed: int, start: int, count: int) -> NDArray[np.float32]:
    """`count` normal values from place `start` of the sequence of `seed`; both multiples of 4."""
    raw = np.random.Philox(key=seed).advance(start // 4).random_raw(count)
    uniform = ((raw >> np.uint64(40)).astype(np.float64) + 0.5) * 2.0**-24
    radius = np.sqrt(-2 * np.log(uniform[0::2]))
    angle = 2 * np.pi * uniform[1::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1).astype(np.float32)


def sample(estimate: Estimate, noise: Tensor, steps: int) -> Tensor:
    """Deterministic DDIM sampling (Song et al., ICLR 2021) from `noise` in `steps` estimates of x0.

    With one step the result is the estimate from pure noise.
    """
    alpha_bar = alphas_cumprod()
    timesteps = spaced_timesteps(steps)
    x = noise
    for k in reversed(range(steps)):
        a, s = alpha_bar[timesteps[k]] ** 0.5, (1 - alpha_bar[timesteps[k]]) ** 0.5
        x0 = estimate(x, timesteps[k])
        if k == 0:
            return x0
        direction = (x - a * x0) / s
        b = alpha_bar[timesteps[k - 1]]
        x = float(b**0.5) * x0 + float((1 - b) ** 0.5) * direction
    raise AssertionError("unreachable: steps is at least 1")
