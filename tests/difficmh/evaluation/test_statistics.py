"""From evidence to figures, and the intervals around them."""

from __future__ import annotations

import numpy as np
import pytest

from difficmh.evaluation.intervals import Interval, draws, interval
from difficmh.evaluation.statistics import Counts, f1, mean


def test_means_and_f1_under_weights() -> None:
    assert mean([1.0, 4.0])(np.ones(2)) == 2.5
    assert mean([1.0, 4.0])(np.array([0.0, 3.0])) == 4
    assert mean([1.0])(np.zeros(1)) is None
    counts = f1([Counts.of_sets({"a", "b"}, {"b", "c"}), Counts.of_sets(set(), set())])
    assert counts(np.ones(2)) == pytest.approx(0.5)
    assert counts(np.array([0.0, 1.0])) is None


def test_draws_are_the_set_itself_and_then_samples_of_its_size() -> None:
    drawn = draws(7, 50, seed=3)
    assert drawn.shape == (51, 7)
    assert (drawn[0] == 1).all()
    assert (drawn.sum(axis=1) == 7).all()
    assert np.array_equal(drawn, draws(7, 50, seed=3))
    assert not np.array_equal(drawn, draws(7, 50, seed=4))


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = random.normal(5.0, 2.0, 40)
        found = interval([mean(values.tolist())(weights) for weights in draws(40, 200)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        covered += found.low < 5.0 < found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_one_picture_says_nothing_about_the_choice_of_pictures() -> None:
    assert interval([mean([1.5])(weights) for weights in draws(1)]) == Interval(1.5, None, None)


def test_figures_without_bounds_and_no_figure() -> None:
    assert interval([None, 1.0, 2.0]) is None
    assert interval([1.5]) == Interval(1.5, None, None)
    assert interval([1.5, *[None] * 10, *[1.0] * 90]) == Interval(1.5, None, None)
    assert interval([1.5, *[None] * 2, *[1.0] * 98]) == Interval(1.5, 1.0, 1.0)
