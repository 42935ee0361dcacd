"""The paper's sampler: its steps, and the noise that it asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difficmh.sd21.reference_sampler import sample_ddpm, spaced_process


def test_one_step_of_the_reference_is_step_0() -> None:
    assert spaced_process(1).timesteps.tolist() == [0]
    assert spaced_process(3).timesteps.tolist() == [0, 500, 999]
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="steps"):
            spaced_process(steps)


def test_the_last_step_adds_no_noise() -> None:
    asked = []

    def noise(timestep: int) -> Tensor:
        asked.append(timestep)
        return torch.zeros(1, 4, 2, 2)

    sample_ddpm(lambda x, t: torch.zeros_like(x), torch.ones(1, 4, 2, 2), noise, 5)
    assert asked == spaced_process(5).timesteps[:0:-1].tolist()
