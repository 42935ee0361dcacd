"""Seconds per step: what adds up, by a clock that goes on by one second each time it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier, BrokenBarrierError

import pytest

from pipeline.steps import Steps


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr("pipeline.steps.time.perf_counter", lambda: float(next(ticks)))


def test_the_same_step_adds_up_and_others_stay_apart() -> None:
    steps = Steps()
    for step in ("decode", "tag", "decode"):
        with steps(step):
            pass
    assert steps.seconds == {"decode": 2.0, "tag": 1.0}


def test_a_step_within_another_counts_for_both() -> None:
    steps = Steps()
    with steps("write"), steps("commit"):
        pass
    assert steps.seconds == {"write": 3.0, "commit": 1.0}


def test_a_step_that_raises_counts() -> None:
    steps = Steps()
    with pytest.raises(ValueError, match="bad"), steps("decode"):
        raise ValueError("bad")
    assert steps.seconds == {"decode": 1.0}


def test_items_count_while_they_come_and_not_while_they_are_used() -> None:
    steps = Steps()
    taken = []
    for item in steps.each("read", "ab"):
        with steps("use"):
            taken.append(item)
    assert taken == ["a", "b"]
    assert steps.seconds == {"read": 3.0, "use": 2.0}, "the end has to be read, too"


def test_an_error_of_the_items_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise TimeoutError("slow")

    steps = Steps()
    reading = steps.each("read", items())
    assert next(reading) == 1
    with pytest.raises(TimeoutError):
        next(reading)
    assert steps.seconds == {"read": 2.0}


class Meeting(float):
    """A time whose differences are one second, added slowly: until another thread adds one, too, or none does."""

    both = Barrier(2)

    def __sub__(self, start: float) -> Meeting:
        return Meeting(1)

    def __radd__(self, sum_so_far: float) -> float:
        with suppress(BrokenBarrierError):
            self.both.wait(0.2)
        return sum_so_far + float(self)


def test_times_of_threads_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.steps.time.perf_counter", Meeting)
    steps = Steps()
    with ThreadPoolExecutor(2) as pool:

        def work(_: int) -> None:
            with steps("decode"):
                pass

        list(pool.map(work, range(2)))
    assert steps.seconds == {"decode": 2.0}
