"""The paper's sampler: ancestral sampling on a process of fewer steps, with the official implementation's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from difficmh.sampler import TRAIN_STEPS, alphas_cumprod

NoiseEstimate = Callable[[Tensor, int], Tensor]
"""`(x_t, t)` to the estimate of the noise in x_t."""

StepNoise = Callable[[int], Tensor]
"""Training step to standard normal noise of the latent's shape."""


@dataclass(frozen=True)
class SpacedProcess:
    """The diffusion process on some of the training steps, and its posterior q(x_{k-1} | x_k, x0).

    All arrays are `(steps,)`, ascending in time, timesteps int64 and the rest float64. x0 = `recip` x - `recip_minus_1`
    eps; the posterior has mean `mean_x0` x0 + `mean_x` x and variance `variance`.
    """

    timesteps: NDArray[np.int64]
    alphas_cumprod: NDArray[np.float64]
    betas: NDArray[np.float64]
    recip: NDArray[np.float64]
    recip_minus_1: NDArray[np.float64]
    mean_x0: NDArray[np.float64]
    mean_x: NDArray[np.float64]
    variance: NDArray[np.float64]


def spaced_process(steps: int) -> SpacedProcess:
    """The process of the paper's sampler with 1 to 1000 steps ("Diff-ICMH, official implementation").

    Unlike in `sampler.spaced_timesteps`, a single step is step 0. Raises ValueError for another number of steps.
    """
    timesteps = np.array(_accumulated_timesteps(steps), np.int64)
    alpha_bar = alphas_cumprod()[timesteps]
    before = np.concatenate(([1.0], alpha_bar[:-1]))
    betas = 1 - alpha_bar / before
    return SpacedProcess(
        timesteps=timesteps,
        alphas_cumprod=alpha_bar,
        betas=betas,
        recip=np.sqrt(1 / alpha_bar),
        recip_minus_1=np.sqrt(1 / alpha_bar - 1),
        mean_x0=betas * np.sqrt(before) / (1 - alpha_bar),
        mean_x=(1 - before) * np.sqrt(1 - betas) / (1 - alpha_bar),
        variance=betas * (1 - before) / (1 - alpha_bar),
    )


def _accumulated_timesteps(steps: int) -> list[int]:
    """Sums of a float stride: where rounding meets a tie, only the same sums round the same way."""
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"steps must be in 1..{TRAIN_STEPS}, not {steps}")
    stride = (TRAIN_STEPS - 1) / (steps - 1) if steps > 1 else 0.0
    position, timesteps = 0.0, []
    for _ in range(steps):
        timesteps.append(round(position))
        position += stride
    return timesteps


def sample_ddpm(estimate: NoiseEstimate, x: Tensor, noise: StepNoise, steps: int) -> Tensor:
    """Ancestral sampling (Ho et al., NeurIPS 2020) on a spaced process, the paper's reference: x_T to x0.

    `x` `(B, C, H, W)` float32 is standard normal; `noise` gives what every step but the last adds. Coefficients are
    float64 rounded to float32, the variance before its root is taken. The estimate of x0 is not clipped.
    """
    process = spaced_process(steps)
    for k in reversed(range(steps)):
        t = int(process.timesteps[k])
        x0 = _scalar(process.recip[k]) * x - _scalar(process.recip_minus_1[k]) * estimate(x, t)
        x = _scalar(process.mean_x0[k]) * x0 + _scalar(process.mean_x[k]) * x
        if k > 0:
            x = x + _scalar(np.sqrt(np.float32(process.variance[k]))) * noise(t).to(x.device)
    return x


def _scalar(value: np.floating[Any]) -> float:
    """A coefficient rounded to float32."""
    return float(np.float32(value))
