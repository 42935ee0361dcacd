"""The optimizer among several workers: gradients are those of all of them together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from difficmh.training import optimizer as training


@pytest.fixture
def another_worker(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A second worker whose gradients are three times ours; the list counts the messages."""
    messages: list[int] = []

    def all_reduce(gradients: Tensor) -> None:
        messages.append(gradients.numel())
        gradients.mul_(4)

    monkeypatch.setattr(training, "in_parallel", lambda: True)
    monkeypatch.setattr(training.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(training.distributed, "get_world_size", lambda: 2)
    return messages


def test_gradients_are_averaged_over_workers_in_one_message(another_worker: list[int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).to(memory_format=torch.channels_last)
    unused = nn.Parameter(torch.ones(5))
    optimizer = training.GuardedOptimizer([*network.named_parameters(), ("unused", unused)], learning_rate=1e-3)
    loss = network(torch.randn(2, 3, 3, 3)).square().sum()
    alone = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    optimizer.step(loss, progress=0.0)
    for parameter, gradient in zip(network.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)
    assert unused.grad is not None
    assert not unused.grad.any()
    assert another_worker == [sum(parameter.numel() for parameter in network.parameters()) + 5]
