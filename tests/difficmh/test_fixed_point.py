"""The exact arithmetic against Python's integers, and against the floating-point arithmetic of training."""

from __future__ import annotations

import pytest
import torch

from difficmh.fixed_point import (
    ACTIVATION_BITS,
    LIMIT,
    ONE,
    WEIGHT_BITS,
    FixedPointConv2d,
    FixedPointStack,
    freeze,
    leaky_relu,
    leaky_relu_fixed,
    to_fixed,
)


def test_a_sum_is_the_sum_of_integers() -> None:
    conv = FixedPointConv2d(3, 1, 1)
    freeze(conv)
    x = torch.randint(-(2**18), 2**18, (1, 3, 2, 2)).double()
    weights = [round(w * 2**WEIGHT_BITS) for w in conv.weight.detach().double().flatten().tolist()]
    bias = round(conv.bias.item() * 2**ACTIVATION_BITS)
    for row in range(2):
        for column in range(2):
            total = sum(w * int(v) for w, v in zip(weights, x[0, :, row, column].tolist(), strict=True))
            halved, rest = divmod(total, 2**WEIGHT_BITS)
            up = rest * 2 > 2**WEIGHT_BITS or (rest * 2 == 2**WEIGHT_BITS and halved % 2)
            assert conv.fixed(x)[0, 0, row, column].item() == halved + up + bias


def test_order_of_summation_does_not_matter() -> None:
    conv = FixedPointConv2d(64, 8, 3, padding=1)
    freeze(conv)
    x = torch.randint(-(2**19), 2**19, (1, 64, 16, 16)).double()
    shuffled = torch.randperm(64)
    other = FixedPointConv2d(64, 8, 3, padding=1)
    other.load_state_dict({"weight": conv.weight[:, shuffled], "bias": conv.bias})
    freeze(other)
    assert torch.equal(conv.fixed(x), other.fixed(x[:, shuffled]))


def test_both_arithmetics_agree_up_to_their_resolution() -> None:
    stack = FixedPointStack(
        FixedPointConv2d(4, 16, 3, padding=1), FixedPointConv2d(16, 16, 1), FixedPointConv2d(16, 4, 1)
    )
    freeze(stack)
    x = 4 * torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(stack.fixed(to_fixed(x)) / ONE, stack(x).double(), atol=0.02)


def test_negative_values_shrink_and_all_are_bounded() -> None:
    x = torch.tensor([-(2.0**40), -9.0, -4.0, 0.0, 5.0, 2.0**40], dtype=torch.float64)
    limit = LIMIT * ONE
    assert leaky_relu_fixed(x).tolist() == [-limit, -1.0, 0.0, 0.0, 5.0, limit]


def test_floats_are_bounded_as_integers_are() -> None:
    assert leaky_relu(torch.tensor([-1e6, -8.0, 5.0, 1e6])).tolist() == [-LIMIT, -1.0, 5.0, LIMIT]


def test_activations_are_rounded_to_the_nearest() -> None:
    assert to_fixed(torch.tensor([-1.75, -0.75, -0.25, 0.25, 0.75, 1.5, 2.5]) / ONE).tolist() == [-2, -1, 0, 0, 1, 2, 2]


def test_weights_that_could_leave_the_exact_range_are_refused() -> None:
    conv = FixedPointConv2d(512, 1, 5)
    with torch.no_grad():
        conv.weight.fill_(1000.0)
    with pytest.raises(ValueError, match="too large"):
        freeze(conv)


def test_the_largest_weights_of_exact_sums() -> None:
    """A sum below 2**52 is exact with room for its rounding; 2**52 itself is refused."""
    conv = FixedPointConv2d(1, 1, 1)
    largest = 2.0 ** (52 - WEIGHT_BITS - ACTIVATION_BITS) / LIMIT
    with torch.no_grad():
        conv.weight.fill_(largest - 0.25)
    freeze(conv)
    with torch.no_grad():
        conv.weight.fill_(-largest)
    with pytest.raises(ValueError, match="too large"):
        freeze(conv)


@pytest.mark.parametrize("weights", [[1e9, -1e9], [float("nan"), 0.0], [float("inf"), 0.0], [float("inf"), -1e9]])
def test_one_output_with_unusable_weights_is_refused_by_its_name(weights: list[float]) -> None:
    stack = FixedPointStack(FixedPointConv2d(1, 2, 1), FixedPointConv2d(2, 3, 1))
    with torch.no_grad():
        stack.convs[1].weight[1, :, 0, 0] = torch.tensor(weights)
    with pytest.raises(ValueError, match=r"^convs\.1: weights too large"):
        freeze(stack)
