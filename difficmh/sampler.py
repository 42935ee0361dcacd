"""Noise schedule, noise and samplers of the diffusion decoder.

Everything here is a function of its arguments: the initial noise comes from a counter-based generator seeded by the
stream, so that a bitstream decodes to the same picture everywhere, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 0.00085, 0.0120
"""Stable Diffusion's schedule, linear in the square root of beta (diffusers calls it `scaled_linear`)."""

Estimate = Callable[[Tensor, int], Tensor]
"""`(x_t, t)` to the estimate of the clean latent x0."""

NoiseEstimate = Callable[[Tensor, int], Tensor]
"""`(x_t, t)` to the estimate of the noise in x_t."""

StepNoise = Callable[[int], Tensor]
"""Training step to standard normal noise of the latent's shape."""


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


def seeded_noise(
    seed: int, channels: int, rows: slice, columns: slice, across: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise `(channels, rows, columns)` float32 for part of a latent `across` columns wide.

    Each position of the latent has numbers of its own, whichever part of it is asked for: counters of a Philox
    generator keyed by `seed`, whose raw output NumPy's specification fixes. The Box–Muller transform runs in float64 on
    the device, where platforms agree far below float32's precision. `channels` must be a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"noise comes in groups of 4 channels, not {channels}")
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if width == across:  # whole lines follow each other: one call instead of one for each, a quarter of the time
        bits = _bits(seed, rows.start * across * channels, height * across * channels)
    else:
        starts = ((row * across + columns.start) * channels for row in range(rows.start, rows.stop))
        bits = np.concatenate([_bits(seed, start, width * channels) for start in starts])
    return _normal(torch.from_numpy(bits).to(device)).view(height, width, channels).permute(2, 0, 1)


def _bits(seed: int, start: int, count: int) -> NDArray[np.int32]:
    """`count` integers below 2^24 from place `start` of the sequence of `seed`; both multiples of 4."""
    raw = np.random.Philox(key=seed).advance(start // 4).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.int32)


def _normal(bits: Tensor) -> Tensor:
    """Standard normal values, float32, of as many integers below 2^24: the Box–Muller transform of pairs."""
    uniform = (bits.double() + 0.5) * 2.0**-24
    radius = torch.sqrt(-2 * torch.log(uniform[0::2]))
    angle = 2 * math.pi * uniform[1::2]
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1).view(-1).float()


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


@dataclass(frozen=True)
class NoiseField:
    """The noise that the streams of `B` images define for one part of their latents: a start, and one for each step.

    `seeds` are below 2^64. Places of the latent have their own numbers as in `seeded_noise`, whose arguments the other
    fields are; each training step has its own too. Noise is made on `device`.
    """

    seeds: Sequence[int]
    channels: int
    rows: slice
    columns: slice
    across: int
    device: torch.device | str = "cpu"

    def start(self) -> Tensor:
        """x_T, `(B, channels, rows, columns)` float32: the noise of `seeded_noise` itself."""
        return torch.stack([self._of(seed) for seed in self.seeds])

    def at(self, timestep: int) -> Tensor:
        """The noise that is added on the way down from training step `timestep`, in [0, 1000); shape as `start`."""
        # The seed fills the lower half of the generator's 128-bit key; the start has zeros in the upper half.
        return torch.stack([self._of(seed + ((timestep + 1) << 64)) for seed in self.seeds])

    def _of(self, key: int) -> Tensor:
        return seeded_noise(key, self.channels, self.rows, self.columns, self.across, self.device)


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

    Unlike in `spaced_timesteps`, a single step is step 0. Raises ValueError for another number of steps.
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
