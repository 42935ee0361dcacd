"""Metrics of the semantic consistency loss equal the official ones, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difficmh.training.losses import cosine_distance, normalized_l2
from tests.difficmh.parity_fixtures import needs_parity, tensors

pytestmark = needs_parity

METRICS = {"cos": cosine_distance, "normalized_l2": normalized_l2}


def cases() -> dict[str, Tensor]:
    return tensors("sc_loss")


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("case", [0, 1, 2])
def test_value_and_gradient(case: int, metric: str) -> None:
    given = cases()
    x, y = given[f"{case}.x"], given[f"{case}.y"].requires_grad_()
    loss = METRICS[metric](y, x)
    (gradient,) = torch.autograd.grad(loss, y)
    torch.testing.assert_close(loss, given[f"{case}.{metric}"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, given[f"{case}.{metric}.grad_y"], rtol=1e-3, atol=1e-6)
