"""Schedule, noise and sampling."""

from __future__ import annotations

import math

import numpy as np
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


def test_noise_belongs_to_a_place() -> None:
    whole = sampler.seeded_noise(7, 8, slice(0, 20), slice(0, 30), across=30)
    part = sampler.seeded_noise(7, 8, slice(5, 12), slice(10, 25), across=30)
    assert torch.equal(part, whole[:, 5:12, 10:25])
    assert not torch.equal(whole, sampler.seeded_noise(8, 8, slice(0, 20), slice(0, 30), across=30))


def test_noise_is_normal_and_independent() -> None:
    noise = sampler.seeded_noise(1, 4, slice(0, 128), slice(0, 128), across=128).numpy()
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 0.03


def test_the_first_values_never_change() -> None:
    """Archives depend on them."""
    first = sampler.seeded_noise(123456789, 4, slice(0, 1), slice(0, 1), across=1).flatten()
    assert first.tolist() == pytest.approx(EXPECTED, abs=1e-6)


def philox(counter: int, key: int) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al., SC 2011), from `docs/bitstream.md` and the paper's constants."""
    words, keys = [counter, 0, 0, 0], [key, 0]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [second >> 64 ^ words[1] ^ keys[0], second, first >> 64 ^ words[3] ^ keys[1], first]
        words = [word % 2**64 for word in words]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) % 2**64, (keys[1] + 0xBB67AE8584CAA73B) % 2**64]
    return words


def test_noise_is_that_of_the_format() -> None:
    channels, across, row, column = 8, 5, 3, 2
    first = (row * across + column) * channels
    words = [word for k in (first // 4, first // 4 + 1) for word in philox(k + 1, 0xDEADBEEF)]
    u = [((word >> 40) + 0.5) * 2**-24 for word in words]
    expected = []
    for radius, turn in zip(u[::2], u[1::2], strict=True):
        length = math.sqrt(-2 * math.log(radius))
        expected += [length * math.cos(2 * math.pi * turn), length * math.sin(2 * math.pi * turn)]
    noise = sampler.seeded_noise(0xDEADBEEF, channels, slice(row, row + 1), slice(column, column + 1), across)
    assert noise.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_sampling_with_a_perfect_estimate_ends_there() -> None:
    clean = torch.randn(1, 4, 3, 3)
    for steps in (1, 2, 10):
        assert torch.allclose(sampler.sample(lambda x, t: clean, torch.randn(1, 4, 3, 3), steps), clean)


EXPECTED = [-0.5749232769, 0.2262051702, -1.0432375669, -0.9320482016]
