"""The exact layers against their definitions in Python's integers and floats."""

from __future__ import annotations

import math

import pytest
import torch

from difficmh.fixed_point import ONE, freeze, to_fixed
from difficmh.sd21.exact_layers import (
    LIMIT,
    WEIGHT_BITS,
    ExactConvTranspose2d,
    ExactGelu,
    exact_chain,
    exact_conv,
    exact_deconv,
)
from difficmh.sd21.gelu_table import FALLS, RISES, gelu_deficit


def test_the_stored_table_is_gelu_rounded() -> None:
    for place, value in enumerate([*gelu_deficit(), 0, 0]):
        a = place / ONE
        assert abs(value - ONE * a * math.erfc(a / math.sqrt(2)) / 2) < 0.5


def test_the_table_is_one_hump() -> None:
    assert list(RISES) == sorted(set(RISES))
    assert list(FALLS) == sorted(set(FALLS))
    assert RISES[-1] < FALLS[0]
    assert gelu_deficit()[-1] == 0


def test_gelu_is_exact_to_half_a_unit_everywhere() -> None:
    gelu = ExactGelu()
    freeze(gelu)
    x = torch.cat((torch.arange(-9000.0, 9000.0), torch.tensor([-(2.0**40), 2.0**40]))).double()
    assert (gelu.fixed(x) - ONE * torch.nn.functional.gelu(x / ONE)).abs().max() <= 0.5 + 1e-6


def test_a_transposed_sum_is_the_sum_of_integers() -> None:
    torch.manual_seed(0)
    layer = exact_deconv(2, 1, 3, 2)
    freeze(layer)
    x = torch.randint(-(2**20), 2**20, (1, 2, 2, 2)).double()
    expected = [[0] * 4 for _ in range(4)]
    for channel in range(2):
        for i in range(4):
            for row in range(3):
                for column in range(3):
                    at = (2 * (i // 2) + row - 1, 2 * (i % 2) + column - 1)
                    if min(at) < 0 or max(at) > 3:
                        continue
                    weight = round(layer.weight[channel, 0, row, column].double().item() * 2**WEIGHT_BITS)
                    expected[at[0]][at[1]] += weight * int(x[0, channel, i // 2, i % 2].item())
    bias = round(layer.bias.item() * ONE)
    # round() on fractions of powers of two is exact, ties to even.
    rounded = [[round(total / 2**WEIGHT_BITS) + bias for total in line] for line in expected]
    assert layer.fixed(x)[0, 0].tolist() == rounded


def test_channels_may_be_summed_in_any_order() -> None:
    torch.manual_seed(0)
    layer, other = exact_deconv(48, 8), exact_deconv(48, 8)
    order = torch.randperm(48)
    other.load_state_dict({"weight": layer.weight[order], "bias": layer.bias})
    freeze(layer)
    freeze(other)
    x = torch.randint(-(2**22), 2**22, (2, 48, 6, 6)).double()
    assert torch.equal(layer.fixed(x), other.fixed(x[:, order]))


def test_both_arithmetics_agree_up_to_their_resolution() -> None:
    torch.manual_seed(0)
    chain = exact_chain(exact_deconv(8, 16), exact_deconv(16, 16, 3, 1), exact_conv(16, 4, 5))
    freeze(chain)
    x = 3 * torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        assert torch.allclose(chain.fixed(to_fixed(x)) / ONE, chain(x).double(), atol=3e-3)


def test_what_is_too_large_is_clamped_before_it_is_summed() -> None:
    torch.manual_seed(0)
    layer = exact_conv(4, 4, 1)
    freeze(layer)
    x = torch.tensor([1e12, -1e12, 5e6, 7.0]).double().view(1, 4, 1, 1)
    assert torch.equal(layer.fixed(x), layer.fixed(x.clamp(-LIMIT * ONE, LIMIT * ONE)))


@pytest.mark.parametrize("fill", [2000.0, math.nan, math.inf])
@pytest.mark.parametrize("layer", [exact_conv(64, 2, 5), ExactConvTranspose2d(64, 2, 5)])
def test_weights_beyond_the_proof_are_refused_by_name(fill: float, layer: torch.nn.Module) -> None:
    torch.nn.init.constant_(layer.weight, fill)
    with pytest.raises(ValueError, match="1: weights too large"):
        freeze(torch.nn.Sequential(torch.nn.GELU(), layer))
