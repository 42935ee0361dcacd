"""Ratios must survive a machine whose speed changes while it is measured."""

from __future__ import annotations

import pytest

from benchmarks.timing import Timings, time_in_rounds


def test_every_action_runs_once_to_warm_up_and_once_a_round() -> None:
    calls: list[str] = []
    timings = time_in_rounds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 3, "b": 3}


def test_load_that_lasts_for_a_round_does_not_change_a_ratio() -> None:
    quiet = Timings({"own": [2.0, 2.0, 2.0], "reference": [1.0, 1.0, 1.0]})
    busy = Timings({"own": [2.0, 8.0, 2.0], "reference": [1.0, 4.0, 1.0]})
    assert quiet.ratio("own", "reference") == busy.ratio("own", "reference") == pytest.approx(2.0)


def test_best_is_the_undisturbed_round() -> None:
    assert Timings({"own": [3.0, 2.0, 9.0]}).best("own") == 2.0


def test_another_clock_may_count() -> None:
    ticks = iter([0.0, 2.0, 10.0, 15.0])
    timings = time_in_rounds({"it": lambda: None}, rounds=2, clock=lambda: next(ticks))
    assert timings.seconds == {"it": [2.0, 5.0]}
