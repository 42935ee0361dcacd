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


def bd_rate(reference: Curve, test: Curve) -> float | None:
    """Bjøntegaard delta rate of `test` against `reference`, in per cent: -10 means a tenth fewer bits at equal quality.

    The mean difference of the logarithm of the rate over the qualities that both reach, each curve interpolated by a
    monotone cubic. None where the curves share no range of qualities.
    """
    low = max(curve.qualities[0] for curve in (reference, test)) if reference.points and test.points else math.inf
    high = min(curve.qualities[-1] for curve in (reference, test)) if reference.points and test.points else -math.inf
    if not low < high:
        return None
    areas = [
        float(PchipInterpolator(curve.qualities, curve.log_rates).integrate(low, high)) for curve in (reference, test)
    ]
    return 100 * float(np.expm1((areas[1] - areas[0]) / (high - low)))
