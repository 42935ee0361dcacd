"""Seconds per step of a shard's work, added up over threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

Item = TypeVar("Item")


class Steps:
    """`with steps("decode"): …` adds to `steps.seconds["decode"]`. Threads may add at once: their times add up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self._seconds[step] = self._seconds.get(step, 0.0) + elapsed

    def each(self, step: str, items: Iterable[Item]) -> Iterator[Item]:
        """`items`, with the time each one takes to come added to `step`."""
        iterator = iter(items)
        while True:
            with self(step):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by step, to the millisecond."""
        with self._lock:
            return {step: round(seconds, 3) for step, seconds in self._seconds.items()}
