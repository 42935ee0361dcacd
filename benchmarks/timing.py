"""Timings of several things beside each other, on machines that are busy with other work too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Action = Callable[[], object]
Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Timings:
    """Seconds of each action in each round; all actions ran in every round, one after the other."""

    seconds: Mapping[str, list[float]]

    def best(self, name: str) -> float:
        """Least seconds: what the machine does when nothing else disturbs it."""
        return min(self.seconds[name])

    def ratio(self, name: str, reference: str) -> float:
        """Median over rounds of one action's time over another's: load that lasts for a round cancels out."""
        pairs = zip(self.seconds[name], self.seconds[reference], strict=True)
        return statistics.median(own / other for own, other in pairs)


def time_in_rounds(actions: Mapping[str, Action], rounds: int, clock: Clock = time.perf_counter) -> Timings:
    """Run all actions once to warm up, then `rounds` times in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(rounds):
        for name, action in actions.items():
            seconds[name].append(_seconds(action, clock))
    return Timings(seconds)


def device_clock(device: torch.device) -> Clock:
    """Elapsed seconds once the device has done all that it was given."""
    if device.type == "cpu":
        return time.perf_counter

    def elapsed() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return elapsed


def _seconds(action: Action, clock: Clock) -> float:
    start = clock()
    action()
    return clock() - start
