"""The one retry layer: one budget for a request, jittered exponential pauses, transient errors only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import Verdict, decide

Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """How often and how long a failing request is repeated: full jitter under an exponential ceiling, in seconds."""

    attempts: int = 8
    budget: float = 120.0
    first: float = 0.5
    ceiling: float = 20.0

    def __call__(self, request: Callable[[], Result]) -> Result:
        """The result of `request`; its last error once attempts or budget are spent, any other error at once."""
        deadline = time.monotonic() + self.budget
        for attempt in range(self.attempts):
            try:
                return request()
            except Exception as error:
                pause = random.uniform(0, min(self.ceiling, self.first * 2**attempt))
                last = attempt + 1 == self.attempts or time.monotonic() + pause > deadline
                if last or decide(error) is not Verdict.RETRY:
                    raise
                time.sleep(pause)
        raise AssertionError("a retry makes at least one attempt")


PATIENT = Retry()
BRIEF = Retry(attempts=3, budget=10.0, first=0.2)
"""For first contact: a wrong endpoint or a store that is down should show within seconds."""
