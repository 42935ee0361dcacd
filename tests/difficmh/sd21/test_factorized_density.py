"""The density of z against compressai's."""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck

from difficmh.gradients import lower_bound
from difficmh.sd21.factorized_density import FactorizedDensity


def density() -> FactorizedDensity:
    torch.manual_seed(0)
    model = FactorizedDensity(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_likelihoods_are_those_of_compressai() -> None:
    model = density()
    reference = EntropyBottleneck(5).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    z = 4 * torch.randn(2, 5, 3, 4)
    rounded, expected = reference(z)
    assert torch.allclose(model.likelihood(rounded), expected, atol=1e-6)
    assert torch.allclose(model.quantile_loss(), reference.loss())


def test_both_start_alike() -> None:
    reference = EntropyBottleneck(3)
    fresh = FactorizedDensity(3)
    names = [name for name, _ in fresh.named_parameters()]
    assert names == [name for name, _ in reference.named_parameters()]
    for name, parameter in fresh.named_parameters():
        if "biases" not in name:  # random in both
            assert torch.allclose(parameter, reference.get_parameter(name))


def test_masses_sum_to_one() -> None:
    model = density()
    values = torch.arange(-300.0, 301.0).expand(5, 1, -1)
    assert torch.allclose(model.mass(values)[0].sum(dim=2), torch.ones(5, 1), atol=1e-4)


def test_the_bound_lets_gradients_lift_what_is_below() -> None:
    x = torch.tensor([0.5, 2.0, 0.5], requires_grad=True)
    bounded = lower_bound(x, 1.0)
    (bounded * torch.tensor([1.0, 1.0, -1.0])).sum().backward()
    assert bounded.tolist() == [1.0, 2.0, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, -1.0]
