"""Curves and BD rates against values known in closed form."""

from __future__ import annotations

import math

import pytest

from difficmh.rate_distortion import Curve, Point, bd_rate, linear_at, monotone_at


def curve(scale: float, rates: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)) -> Curve:
    """30 dB at 1 bit, 6 dB more for each doubling of the rate; `scale` times the rate at equal quality."""
    return Curve.through([Point(rate * scale, 30 + 6 * math.log2(rate)) for rate in rates])


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0, 1.3])
def test_bd_rate_of_a_constant_saving(scale: float) -> None:
    assert bd_rate(curve(1), curve(scale)) == pytest.approx(100 * (scale - 1), abs=1e-6)


def test_bd_rate_over_the_shared_qualities_only() -> None:
    assert bd_rate(curve(1), curve(0.8, (0.3, 0.5, 3.0))) == pytest.approx(-20, abs=1e-6)


def test_no_shared_range_no_bd_rate() -> None:
    assert bd_rate(curve(1, (0.1, 0.2)), curve(1, (0.4, 0.8))) is None
    assert bd_rate(curve(1), Curve(())) is None
    assert bd_rate(curve(1), Curve.through([Point(0.3, 28)])) is None


def test_quality_between_and_outside_the_points() -> None:
    node, between, below, above = monotone_at(curve(1), [0.2, 0.3, 0.05, 0.9])
    assert node == pytest.approx(30 + 6 * math.log2(0.2))
    assert between == pytest.approx(30 + 6 * math.log2(0.3), abs=1e-6)
    assert below is None
    assert above is None
    assert monotone_at(Curve.through([Point(0.3, 28)]), [0.3]) == [None]


def test_points_that_never_pay_are_left_out() -> None:
    points = [Point(0.4, 31), Point(0.2, 29), Point(0.3, 28.5), Point(0.2, 28)]
    assert Curve.through(points).points == (Point(0.2, 29), Point(0.4, 31))


def test_bd_rate_within_a_range_of_rates() -> None:
    """Twice the saving above 0.4 bits per pixel; below it, only the part within the range counts."""
    low, high = (
        curve(1),
        Curve.through([*curve(0.5, (0.1, 0.2, 0.4)).points, Point(0.8 * 0.25, 30 + 6 * math.log2(0.8))]),
    )
    everywhere, below = bd_rate(low, high), bd_rate(low, high, (0.0, 0.2))
    assert everywhere is not None
    assert below is not None
    assert everywhere < below < -45
    assert bd_rate(curve(1), curve(0.7), (0.15, 0.5)) == pytest.approx(-30, abs=1e-6)
    assert bd_rate(curve(1), curve(0.7), (2.0, 3.0)) is None


def test_straight_lines_go_through_every_point() -> None:
    points = [Point(0.4, 1.0), Point(0.1, 1.0), Point(0.2, 0.0)]
    assert linear_at(points, [0.2, math.sqrt(0.02), 0.05]) == [0, pytest.approx(0.5), None]
    assert linear_at([], [0.1]) == [None]
    assert linear_at([Point(0.1, 3.0)], [0.1]) == [3]
