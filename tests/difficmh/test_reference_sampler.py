"""The paper's sampler, and the noise that belongs to stream, place and step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difficmh import sampler


def field(rows: slice, columns: slice, *seeds: int) -> sampler.NoiseField:
    return sampler.NoiseField(seeds, 4, rows, columns, across=12)


def test_the_start_is_the_noise_of_the_seed() -> None:
    rows, columns = slice(0, 3), slice(2, 9)
    found = field(rows, columns, 5, 6).start()
    assert found.shape == (2, 4, 3, 7)
    assert torch.equal(found[1], sampler.seeded_noise(6, 4, rows, columns, across=12))


def test_steps_have_noise_of_their_own() -> None:
    whole = field(slice(0, 8), slice(0, 12), 5)
    drawn = [whole.start(), *(whole.at(t) for t in (0, 1, 998, 999))]
    values = torch.stack(drawn).flatten(1)
    correlation = torch.corrcoef(values) - torch.eye(len(drawn))
    assert correlation.abs().max() < 0.2
    assert torch.equal(whole.at(998), drawn[3])


def test_step_noise_belongs_to_a_place() -> None:
    whole, part = field(slice(0, 8), slice(0, 12), 5, 7), field(slice(2, 7), slice(4, 9), 5, 7)
    assert torch.equal(part.at(500), whole.at(500)[:, :, 2:7, 4:9])


def test_an_images_noise_does_not_depend_on_its_neighbours() -> None:
    rows, columns = slice(0, 8), slice(0, 12)
    assert torch.equal(field(rows, columns, 5, 7).at(300)[1], field(rows, columns, 7).at(300)[0])


def test_one_step_of_the_reference_is_step_0() -> None:
    assert sampler.spaced_process(1).timesteps.tolist() == [0]
    assert sampler.spaced_process(3).timesteps.tolist() == [0, 500, 999]
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="steps"):
            sampler.spaced_process(steps)


def test_the_last_step_adds_no_noise() -> None:
    asked = []

    def noise(timestep: int) -> Tensor:
        asked.append(timestep)
        return torch.zeros(1, 4, 2, 2)

    sampler.sample_ddpm(lambda x, t: torch.zeros_like(x), torch.ones(1, 4, 2, 2), noise, 5)
    assert asked == sampler.spaced_process(5).timesteps[:0:-1].tolist()
