"""Functions that pass other gradients than their own, which would teach nothing: rounding and bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient still reaches values below the bound where it would lift them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where((x >= ctx.bound) | (gradients[0] < 0), gradients[0], 0.0), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """`x`, at least `bound`; trainable from below it (Ballé et al., ICLR 2018)."""
    return _LowerBound.apply(x, bound)


def straight_through_round(x: Tensor) -> Tensor:
    """Rounds; the gradient passes as if it had not."""
    return x + (torch.round(x) - x).detach()
