"""Average precision and agreement against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from difficmh.evaluation.detection import Detection, common_precision, judge, matches, mean_average_precision, overlap
from difficmh.evaluation.graders import Box
from difficmh.evaluation.statistics import Counts


def box(label: str, left: float, width: float = 0.2) -> Box:
    """From the top to the bottom of the picture."""
    return Box(label, (left, 0.0, left + width, 1.0))


def found(label: str, left: float, score: float, width: float = 0.2) -> Detection:
    return Detection(box(label, left, width), score)


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(box("car", 0.0), box("car", 0.0)) == pytest.approx(1)
    assert overlap(box("car", 0.0), box("car", 0.1)) == pytest.approx(1 / 3)
    assert overlap(box("car", 0.0), box("car", 0.5)) == 0
    assert overlap(box("car", 0.0, 0.0), box("car", 0.0, 0.0)) == 0


def test_each_object_is_found_once_and_only_by_its_class() -> None:
    judged = judge([found("car", 0.01, 0.9), found("car", 0.0, 0.8), found("bus", 0.0, 0.95)], [box("car", 0.0)])
    assert judged.detections == (("bus", 0.95, False), ("car", 0.9, True), ("car", 0.8, False))
    assert judged.objects == (("car", 1),)


def test_average_precision_by_hand() -> None:
    """Two cars in one picture, one in another; hits at ranks 1 and 3 of 3: AP = 1/3 * 1 + 1/3 * 2/3 = 5/9."""
    first = judge([found("car", 0.0, 0.9), found("car", 0.8, 0.7)], [box("car", 0.0), box("car", 0.4)])
    second = judge([found("car", 0.2, 0.5)], [box("car", 0.2)])
    assert mean_average_precision([first, second])(np.ones(2)) == pytest.approx(5 / 9)


def test_precision_never_rises_with_recall() -> None:
    """A false detection first: both hits count with the best precision at their recall or later, 2/3."""
    judged = judge(
        [found("car", 0.8, 0.9), found("car", 0.0, 0.6), found("car", 0.4, 0.5)], [box("car", 0.0), box("car", 0.4)]
    )
    assert mean_average_precision([judged])(np.ones(1)) == pytest.approx(2 / 3)


def test_the_mean_is_over_classes_that_have_objects() -> None:
    judged = judge([found("car", 0.0, 0.9), found("dog", 0.0, 0.9)], [box("car", 0.0), box("bus", 0.5)])
    assert mean_average_precision([judged])(np.ones(1)) == pytest.approx(0.5)
    assert mean_average_precision([judge([found("car", 0, 0.9)], [])])(np.ones(1)) is None


def test_common_classes_are_those_of_some_objects() -> None:
    cars = [box("car", place / 10, 0.1) for place in range(5)]
    judged = judge([found("car", place / 10, 0.9, 0.1) for place in range(4)], [*cars, box("racket", 0.0)])
    assert mean_average_precision([judged])(np.ones(1)) == pytest.approx(0.4)
    assert common_precision([judged])(np.ones(1)) == pytest.approx(0.8)
    assert common_precision([judge([], cars[:4])])(np.ones(1)) is None


def test_a_picture_of_weight_two_counts_as_two_pictures() -> None:
    good = judge([found("car", 0.0, 0.8)], [box("car", 0.0)])
    bad = judge([found("car", 0.5, 0.9)], [box("car", 0.0)])
    weighted = mean_average_precision([good, bad])(np.array([2.0, 1.0]))
    assert weighted == pytest.approx(mean_average_precision([good, good, bad])(np.ones(3)))
    assert mean_average_precision([good, bad])(np.array([0.0, 1.0])) == 0


def test_agreement_counts_both_sides() -> None:
    original = [found("car", 0.0, 0.9), found("bus", 0.5, 0.9)]
    decoded = [found("car", 0.02, 0.6), found("bus", 0.0, 0.6), found("car", 0.8, 0.6)]
    assert matches(original, decoded) == Counts(hits=1, extra=2, missed=1)
    assert matches(original, original) == Counts(2, 0, 0)
