"""AdamW that survives bad steps, and an exponential moving average of the weights."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Any, cast

import torch
import torch.distributed as distributed
from torch import Tensor, nn

WARM_UP_STEPS = 100
FINAL_SHARE = 0.05
"""Share of the learning rate that is left at the end of the cosine."""

BASIS_SHARE = 0.02
"""Learning rate of the linear transforms relative to the rest: their weights start right and are small, and Adam moves
every weight by about the rate per step."""


def in_parallel() -> bool:
    """Whether several workers train together."""
    return distributed.is_available() and distributed.is_initialized()


def learning_rate_share(before: float, progress: float) -> float:
    """The share of the next step, after one of `before`: a cosine over `progress` in [0, 1], reached by small steps.

    It rises by at most 1 / WARM_UP_STEPS, at the start and where a budget was raised after the rate had already fallen:
    Adam scales by the gradients of the last hundred steps, and a jump has broken a one-step decoder.
    """
    cosine = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(cosine, before + 1 / WARM_UP_STEPS)


class GuardedOptimizer:
    """AdamW with clipping at twice the running median of the gradient norm; far outliers are skipped.

    Codecs with learned entropy models blow up once in some thousand steps; a skipped step costs nothing, a blown-up one
    a hundred. Under `torch.distributed` gradients are averaged over the workers first.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        others = [p for name, p in named if not _is_basis(name)]
        groups = [
            {"params": [p for name, p in named if _is_basis(name)], "weight_decay": 0.0, "share": BASIS_SHARE},
            {"params": [p for p in others if p.ndim > 1], "weight_decay": 1e-4, "share": 1.0},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "share": 1.0},
        ]
        self.parameters = [parameter for _, parameter in named]
        self.adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas)
        self.learning_rate = learning_rate
        self.norms: deque[float] = deque(maxlen=200)
        self.skipped = 0
        self.share = 0.0

    def step(self, loss: Tensor, progress: float) -> float:
        """Backward pass and update; returns the gradient norm before clipping."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self._average_over_workers()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        limit = 2 * median(self.norms) if len(self.norms) >= 20 else math.inf
        if not math.isfinite(norm) or norm > 5 * limit:
            self.skipped += 1
            # A lasting change of scale must not stop training: let the median follow slowly.
            self.norms.append(min(norm, 1.5 * limit) if math.isfinite(norm) else limit)
            return norm
        self.norms.append(norm)
        nn.utils.clip_grads_with_norm_(self.parameters, min(limit, 1e6), torch.tensor(norm))
        self.share = learning_rate_share(self.share, progress)
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate * self.share * group["share"]
        self.adam.step()
        return norm

    def _average_over_workers(self) -> None:
        """In one message: hundreds of small ones would cost more in waiting than in bytes."""
        if not in_parallel():
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [cast(Tensor, parameter.grad) for parameter in self.parameters]
        everything = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(everything)
        everything /= distributed.get_world_size()
        parts = everything.split([gradient.numel() for gradient in gradients])
        for gradient, average in zip(gradients, parts, strict=True):
            gradient.copy_(average.view(gradient.shape))

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "norms": list(self.norms), "share": self.share, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.norms.extend(state["norms"])
        self.share, self.skipped = state["share"], state["skipped"]


class MovingAverage:
    """Exponential moving average of the floating-point parameters of a module; `decay` grows during the first steps."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: value.detach().clone() for name, value in _floats(module)}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes in the parameters as they are after another step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _floats(module):
            self.values[name].lerp_(value.detach(), weight)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)


def _floats(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in module.named_parameters() if value.is_floating_point()]


def _is_basis(name: str) -> bool:
    return ".basis" in name or name.startswith("basis")
