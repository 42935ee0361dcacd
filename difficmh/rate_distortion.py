"""Rate-distortion curves of codecs: the quality at a given rate, and the rate saved at equal quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Point:
    """One operating point: bits per pixel and a quality measure that grows (dB, or a score)."""

    bits_per_pixel: float
    quality: float


@dataclass(frozen=True)
class Curve:
    """Points of one codec, sorted by rate, each better than all cheaper ones; others never pay and are left out."""

    points: tuple[Point, ...]

    @classmethod
    def through(cls, points: Sequence[Point]) -> Curve:
        kept: list[Point] = []
        for point in sorted(points, key=lambda point: (point.bits_per_pixel, -point.quality)):
            if not kept or (point.quality > kept[-1].quality and point.bits_per_pixel > kept[-1].bits_per_pixel):
                kept.append(point)
        return cls(tuple(kept))

    @property
    def log_rates(self) -> list[float]:
        return [math.log(point.bits_per_pixel) for point in self.points]

    @property
    def qualities(self) -> list[float]:
        return [point.quality for point in self.points]


def quality_at(curve: Curve, bits_per_pixel: float) -> float | None:
    """Quality interpolated at a rate (monotone cubic over the logarithm of the rate); None outside the curve."""
    rate, rates = math.log(bits_per_pixel), curve.log_rates
    if len(rates) < 2 or not rates[0] <= rate <= rates[-1]:
        return None
    return float(PchipInterpolator(rates, curve.qualities)(rate))


def linear_at(points: Sequence[Point], bits_per_pixel: float) -> float | None:
    """Quality at a rate on straight lines over the logarithm of the rate; None outside the points.

    For measures that are not bound to grow with the rate, such as what a detector finds: every point counts, also one
    that is worse than a cheaper one.
    """
    found = sorted(points, key=lambda point: point.bits_per_pixel)
    if not found or not found[0].bits_per_pixel <= bits_per_pixel <= found[-1].bits_per_pixel:
        return None
    rates = [math.log(point.bits_per_pixel) for point in found]
    return float(np.interp(math.log(bits_per_pixel), rates, [point.quality for point in found]))


def bd_rate(reference: Curve, test: Curve, rates: tuple[float, float] = (0.0, math.inf)) -> float | None:
    """Bjøntegaard delta rate of `test` against `reference`, in per cent: -10 means a tenth fewer bits at equal quality.

    The mean difference of the logarithm of the rate over the qualities that both reach within the given range of bits
    per pixel, each whole curve interpolated by a monotone cubic. None where the curves share no range of qualities.
    """
    spans = [_qualities_within(curve, rates) for curve in (reference, test)]
    if any(span is None for span in spans):
        return None
    low = max(span[0] for span in spans if span is not None)
    high = min(span[1] for span in spans if span is not None)
    if not low < high:
        return None
    areas = [
        float(PchipInterpolator(curve.qualities, curve.log_rates).integrate(low, high)) for curve in (reference, test)
    ]
    return 100 * float(np.expm1((areas[1] - areas[0]) / (high - low)))


def _qualities_within(curve: Curve, rates: tuple[float, float]) -> tuple[float, float] | None:
    """What a curve reaches at the ends of its part within a range of rates."""
    if len(curve.points) < 2:
        return None
    low, high = max(rates[0], curve.points[0].bits_per_pixel), min(rates[1], curve.points[-1].bits_per_pixel)
    if low >= high:
        return None
    to_quality = PchipInterpolator(curve.log_rates, curve.qualities)
    return float(to_quality(math.log(low))), float(to_quality(math.log(high)))
