"""Rate-distortion curves of codecs: what a measure says at a given rate, and the rate saved at equal quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Point:
    """One operating point: bits per pixel, and what a measure says of the pictures there (dB, a score, a distance)."""

    bits_per_pixel: float
    value: float


@dataclass(frozen=True)
class Curve:
    """Points of one codec, sorted by rate, each better than all cheaper ones; others never pay and are left out.

    For measures that grow as pictures get better.
    """

    points: tuple[Point, ...]

    @classmethod
    def through(cls, points: Sequence[Point]) -> Curve:
        kept: list[Point] = []
        for point in sorted(points, key=lambda point: (point.bits_per_pixel, -point.value)):
            if not kept or (point.value > kept[-1].value and point.bits_per_pixel > kept[-1].bits_per_pixel):
                kept.append(point)
        return cls(tuple(kept))

    @property
    def log_rates(self) -> list[float]:
        return [math.log(point.bits_per_pixel) for point in self.points]

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]


def monotone_at(curve: Curve, rates: Sequence[float]) -> list[float | None]:
    """Values at rates in bits per pixel by a monotone cubic over the logarithm of the rate; None outside the curve."""
    logs, known = [math.log(rate) for rate in rates], curve.log_rates
    if len(known) < 2:
        return [None for _ in rates]
    found = PchipInterpolator(known, curve.values)(logs)
    return [float(one) if known[0] <= log <= known[-1] else None for log, one in zip(logs, found, strict=True)]


def linear_at(points: Sequence[Point], rates: Sequence[float]) -> list[float | None]:
    """Values at rates in bits per pixel on straight lines over the logarithm of the rate; None outside the points.

    For measures that are not bound to grow with the rate, such as what a detector finds: every point counts, also one
    that is worse than a cheaper one.
    """
    found = sorted(points, key=lambda point: point.bits_per_pixel)
    if not found:
        return [None for _ in rates]
    known, values = [math.log(point.bits_per_pixel) for point in found], [point.value for point in found]
    low, high = found[0].bits_per_pixel, found[-1].bits_per_pixel
    return [float(np.interp(math.log(rate), known, values)) if low <= rate <= high else None for rate in rates]


def bd_rate(reference: Curve, test: Curve, rates: tuple[float, float] = (0.0, math.inf)) -> float | None:
    """Bjøntegaard delta rate of `test` against `reference`, in per cent: -10 means a tenth fewer bits at equal quality.

    The mean difference of the logarithm of the rate over the values that both reach within the given range of bits
    per pixel, each whole curve interpolated by a monotone cubic. None where the curves share no range of values.
    """
    spans = (_values_within(reference, rates), _values_within(test, rates))
    if spans[0] is None or spans[1] is None:
        return None
    low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
    if not low < high:
        return None
    areas = [
        float(PchipInterpolator(curve.values, curve.log_rates).integrate(low, high)) for curve in (reference, test)
    ]
    return 100 * float(np.expm1((areas[1] - areas[0]) / (high - low)))


def _values_within(curve: Curve, rates: tuple[float, float]) -> tuple[float, float] | None:
    """What a curve reaches at the ends of its part within a range of rates; None where it has no such part."""
    if len(curve.points) < 2:
        return None
    low, high = max(rates[0], curve.points[0].bits_per_pixel), min(rates[1], curve.points[-1].bits_per_pixel)
    if low >= high:
        return None
    to_value = PchipInterpolator(curve.log_rates, curve.values)
    return float(to_value(math.log(low))), float(to_value(math.log(high)))
