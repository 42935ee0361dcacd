"""Samplers by name: the paper's, and faster ones for the same noise model.

    ddpm     the paper's reference: ancestral sampling, 50 steps
    ddim     deterministic, the sampler of `lite`
    dpm++    DPM-Solver++ (2M), diffusers'
    unipc    UniPC, diffusers'

All but `ddpm` are deterministic: they use the initial noise alone. All but `ddpm` start at training step 999 also where
there is a single step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from difficmh import limits
from difficmh.sampler import BETA_FIRST, BETA_LAST, TRAIN_STEPS, sample, signal_and_noise
from difficmh.sd21.reference_sampler import NoiseEstimate, StepNoise, sample_ddpm

SamplerName = Literal["ddpm", "ddim", "dpm++", "unipc"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
REFERENCE_STEPS = 50

MOST_STEPS: Mapping[str, int] = limits.MOST_STEPS["sd21"]
"""diffusers spaces one place more than there are steps, which makes two of 1000 one: a step of no length gives NaN."""


def draw(name: SamplerName, estimate: NoiseEstimate, x: Tensor, noise: StepNoise, steps: int) -> Tensor:
    """The latent x0 `(B, C, H, W)` float32 from standard normal `x` of that shape in `steps` evaluations.

    Raises ValueError for a name that is not in `SAMPLERS` or a number of steps outside 1..`MOST_STEPS`.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is not one of {', '.join(SAMPLERS)}")
    if not 1 <= steps <= MOST_STEPS[name]:
        raise ValueError(f"steps of {name} must be in 1..{MOST_STEPS[name]}, not {steps}")
    if name == "ddpm":
        return sample_ddpm(estimate, x, noise, steps)
    if name == "ddim":
        return sample(lambda x_t, t: clean_estimate(x_t, t, estimate(x_t, t)), x, steps)
    return _run_scheduler(_scheduler(name), estimate, x, steps)


def clean_estimate(x_t: Tensor, timestep: int, eps: Tensor) -> Tensor:
    """The x0 that an estimate of the noise means."""
    signal, noise = signal_and_noise(torch.full((1,), timestep, device=x_t.device))
    return (x_t - noise * eps) / signal


def _scheduler(name: SamplerName) -> Any:
    """A fresh scheduler of diffusers, for it keeps a history."""
    kinds: dict[str, Any] = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    with torch.device("cpu"):  # where it stays, whatever device the program makes tensors on
        return kinds[name](
            num_train_timesteps=TRAIN_STEPS,
            beta_start=BETA_FIRST,
            beta_end=BETA_LAST,
            beta_schedule="scaled_linear",
            prediction_type="epsilon",
            timestep_spacing="linspace",
            final_sigmas_type="zero",
        )


def _run_scheduler(scheduler: Any, estimate: NoiseEstimate, x: Tensor, steps: int) -> Tensor:
    scheduler.set_timesteps(steps)  # on the CPU: reading them from a GPU would make each step wait for the one before
    for t in scheduler.timesteps:
        x = scheduler.step(estimate(x, int(t)), t, x, return_dict=False)[0]
    return x
