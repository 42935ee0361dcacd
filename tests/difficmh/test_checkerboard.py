"""Halves of a checkerboard, and the convolution that takes one and gives the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difficmh import checkerboard
from difficmh.fixed_point import ONE, FixedPointConv2d
from difficmh.sd21.exact_layers import LIMIT, ExactConv2d


def test_checkerboard_halves_come_together_again() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    anchors, others = checkerboard.split(x)
    assert torch.equal(checkerboard.merge(anchors, others), x)
    row, column = 1, 2
    assert anchors[0, 0, row, 1] == x[0, 0, row, column]
    assert anchors[0, 0, 0, 0] == x[0, 0, 0, 1]


def at_others(anchors: Tensor, weight: Tensor) -> Tensor:
    """The long way: over the whole map, half of which is 0, to a whole map, half of which is thrown away."""
    whole = checkerboard.merge(anchors, torch.zeros_like(anchors))
    return checkerboard.split(F.conv2d(whole, weight, padding=weight.shape[-1] // 2))[1]


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5, 7]),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=300, deadline=None)
def test_what_anchors_say_to_the_others(
    sizes: tuple[int, int, int], height: int, width: int, kernel: int, seed: int
) -> None:
    """Every size there is, also those that are smaller than the kernel; integers as large as sums may become."""
    batch, channels, out_channels = sizes
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, 2 * height, width)
    anchors = torch.randint(-(2**22), 2**22, shape, generator=generator).double()
    weight = torch.randint(-(2**22), 2**22, (out_channels, channels, kernel, kernel), generator=generator).double()
    found = checkerboard.conv_at_others(anchors, weight)
    assert torch.equal(found, at_others(anchors, weight))


@pytest.mark.parametrize("make", [FixedPointConv2d, ExactConv2d])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_exact_layers_take_anchors_alone(make: type[FixedPointConv2d], layout: torch.memory_format) -> None:
    layer = make(6, 4, 5, padding=2)
    layer.freeze()
    layer.to(memory_format=layout)  # type: ignore[call-overload]
    anchors = torch.randint(-2 * int(LIMIT * ONE), 2 * int(LIMIT * ONE), (2, 6, 8, 6)).double()
    if make is FixedPointConv2d:
        anchors = anchors.clamp(-layer.limit * ONE, layer.limit * ONE)
    whole = checkerboard.merge(anchors, torch.zeros_like(anchors))
    assert torch.equal(layer.fixed_at_others(anchors), checkerboard.split(layer.fixed(whole))[1])
