"""Noise that belongs to stream, place and step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from difficmh import noise
from difficmh.noise import NoiseField, seeded_noise


def test_noise_belongs_to_a_place() -> None:
    whole = seeded_noise(7, 8, slice(0, 20), slice(0, 30), across=30)
    part = seeded_noise(7, 8, slice(5, 12), slice(10, 25), across=30)
    assert torch.equal(part, whole[:, 5:12, 10:25])
    assert not torch.equal(whole, seeded_noise(8, 8, slice(0, 20), slice(0, 30), across=30))


def test_noise_is_normal_and_independent() -> None:
    drawn = seeded_noise(1, 4, slice(0, 128), slice(0, 128), across=128).numpy()
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(drawn.reshape(4, -1)) - np.eye(4)).max() < 0.03


def test_the_first_values_never_change() -> None:
    """Archives depend on them."""
    first = seeded_noise(123456789, 4, slice(0, 1), slice(0, 1), across=1).flatten()
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
    found = seeded_noise(0xDEADBEEF, channels, slice(row, row + 1), slice(column, column + 1), across)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def field(rows: slice, columns: slice, *seeds: int) -> NoiseField:
    return NoiseField(seeds, 4, rows, columns, across=12)


def test_the_start_is_the_noise_of_the_seed() -> None:
    rows, columns = slice(0, 3), slice(2, 9)
    found = field(rows, columns, 5, 6).start()
    assert found.shape == (2, 4, 3, 7)
    assert torch.equal(found[1], seeded_noise(6, 4, rows, columns, across=12))


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


def test_a_batch_goes_to_the_device_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def normal(bits: Tensor) -> Tensor:
        sizes.append(len(bits))
        return transform(bits)

    transform = noise._normal
    monkeypatch.setattr(noise, "_normal", normal)
    field(slice(0, 8), slice(0, 12), *range(8)).at(300)
    field(slice(0, 8), slice(2, 9), *range(8)).start()
    assert sizes == [8 * 8 * 12 * 4, 8 * 8 * 7 * 4]


EXPECTED = [-0.5749232769, 0.2262051702, -1.0432375669, -0.9320482016]
