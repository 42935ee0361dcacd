"""What the measurements say: means, figures at equal rates, BD-rates, each with a confidence interval.

How codecs are compared at equal bits per pixel: each quality of a codec gives a point (mean rate over the pictures,
figure over the pictures); between the points of a codec the figure is interpolated over the logarithm of the rate, for
fidelity by a monotone cubic through the points that pay, for all else by straight lines through all points. Pictures of
one quality have different rates; what is equal is the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from difficmh.evaluation.intervals import RESAMPLES, Interval, draws, interval
from difficmh.evaluation.measure import Measurement
from difficmh.evaluation.statistics import Metric, Statistic, mean
from difficmh.rate_distortion import Curve, Point, bd_rate, linear_at, monotone_at
from difficmh.unreadable import Unreadable

RATES = (0.05, 0.1, 0.2, 0.3, 0.4)
BD_RANGE = (0.05, 0.5)
"""Bits per pixel at which codecs are compared and between which BD-rates are taken, where nothing else is asked for."""

EXPENSIVE_SHARE = 0.25
"""Share of the draws that metrics of distributions are computed for: a few milliseconds each."""


@dataclass(frozen=True)
class Request:
    """At which rates to compare, in what range BD-rates are taken, and how often pictures are drawn anew."""

    rates: tuple[float, ...] = RATES
    bd_range: tuple[float, float] = BD_RANGE
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """One metric of one codec at one quality; `bits_per_pixel` is the mean over the pictures that it speaks of."""

    quality: int
    bits_per_pixel: float
    images: int
    value: Interval


@dataclass(frozen=True)
class Row:
    """Means over all pictures at one quality of one codec."""

    codec: str
    quality: int
    images: int
    bits_per_pixel: Interval
    compress_seconds: float
    decompress_seconds: float


ByCodec: TypeAlias = dict[str, list[Interval | None]]


@dataclass(frozen=True)
class MetricSummary:
    """One metric: figures by codec, figures at the requested rates, BD-rates by reference and codec in per cent.

    `on_originals` is what the metric gives for undistorted pictures, where that is not perfect by definition.
    """

    metric: Metric
    figures: dict[str, list[Figure]]
    at_rates: ByCodec
    bd_rates: dict[str, dict[str, Interval | None]]
    on_originals: float | None = None


@dataclass(frozen=True)
class Summary:
    """All that a report says. `images` are the names of the pictures, without those that could not be read."""

    request: Request
    images: list[str]
    rows: list[Row]
    metrics: list[MetricSummary]
    unreadable: Unreadable = ()


@dataclass(frozen=True)
class _OperatingPoint:
    """One quality of one codec: rate and figure under each row of the draws, None where there is no figure."""

    quality: int
    images: int
    drawn: list[Point | None]


def summarise(
    measurements: Sequence[Measurement], metrics: Sequence[Metric], references: Sequence[str], request: Request
) -> Summary:
    """The summary; BD-rates are against each codec of `references`, for fidelity only. Raises ValueError for nothing.

    Takes seconds for dozens of pictures, most of them for the Fréchet distance.
    """
    if not measurements:
        raise ValueError("there are no measurements to summarise")
    return Summariser(measurements, request).summary(metrics, references)


class Summariser:
    """Figures of the measurements, all over the same draws of pictures: codecs are compared in pairs."""

    def __init__(self, measurements: Sequence[Measurement], request: Request) -> None:
        self._request = request
        self._images = list(dict.fromkeys(one.image for one in measurements))
        self._place = {name: place for place, name in enumerate(self._images)}
        self._weights = draws(len(self._images), request.resamples, request.seed)
        self._groups: dict[str, dict[int, list[Measurement]]] = {}
        for one in measurements:
            self._groups.setdefault(one.codec, {}).setdefault(one.quality, []).append(one)

    def summary(self, metrics: Sequence[Metric], references: Sequence[str]) -> Summary:
        rows = [
            self._row(codec, quality, group)
            for codec, groups in self._groups.items()
            for quality, group in groups.items()
        ]
        return Summary(self._request, self._images, rows, [self._metric(metric, references) for metric in metrics])

    def curves(self, metric: Metric, codec: str) -> list[list[Point]]:
        """The points of a codec that have a figure, for each draw."""
        return _curves(self._points(metric, self._groups.get(codec, {})))

    def _row(self, codec: str, quality: int, group: Sequence[Measurement]) -> Row:
        rate = interval(self._drawn(mean, [one.bits_per_pixel for one in group], group))
        assert rate is not None, "rates are there for every measurement"
        seconds = [(one.compress_seconds, one.decompress_seconds) for one in group]
        compress, decompress = np.mean(seconds, axis=0).tolist()
        return Row(codec, quality, len(group), rate, compress, decompress)

    def _metric(self, metric: Metric, references: Sequence[str]) -> MetricSummary:
        points = {codec: self._points(metric, groups) for codec, groups in self._groups.items()}
        points = {codec: found for codec, found in points.items() if found}
        compared = [one for one in references if one in points and metric.family == "fidelity"]
        return MetricSummary(
            metric,
            {codec: [figure for point in found if (figure := _figure(point))] for codec, found in points.items()},
            {codec: self._at_rates(metric, found) for codec, found in points.items()},
            {reference: self._bd_rates(metric, points, reference) for reference in compared},
            self._on_originals(metric),
        )

    def _points(self, metric: Metric, groups: dict[int, list[Measurement]]) -> list[_OperatingPoint]:
        found = []
        for quality, group in groups.items():
            known = [one for one in group if metric.name in one.evidence]
            if known:
                share = EXPENSIVE_SHARE if metric.family == "distribution" else 1.0
                figures = self._drawn(metric.combine, [one.evidence[metric.name] for one in known], known, share)
                rates = self._drawn(mean, [one.bits_per_pixel for one in known], known, share)
                found.append(_OperatingPoint(quality, len(known), _points_of(rates, figures)))
        return found

    def _drawn(
        self,
        combine: Callable[[Sequence[Any]], Statistic],
        evidence: Sequence[Any],
        group: Sequence[Measurement],
        share: float = 1.0,
    ) -> list[float | None]:
        """A statistic of a group under the first draws, as many as `share` says."""
        places = np.array([self._place[one.image] for one in group])
        statistic = combine(evidence)
        rows = 1 + round(share * self._request.resamples)
        return [statistic(weights[places]) for weights in self._weights[:rows]]

    def _at_rates(self, metric: Metric, points: Sequence[_OperatingPoint]) -> list[Interval | None]:
        drawn = [figures_at(metric, found, self._request.rates) for found in _curves(points)]
        return [interval(figures) for figures in zip(*drawn, strict=True)]

    def _bd_rates(
        self, metric: Metric, points: dict[str, list[_OperatingPoint]], reference: str
    ) -> dict[str, Interval | None]:
        curves = {codec: [curve(metric, found) for found in _curves(each)] for codec, each in points.items()}
        return {
            codec: interval(
                [bd_rate(*pair, self._request.bd_range) for pair in zip(curves[reference], each, strict=True)]
            )
            for codec, each in curves.items()
            if codec != reference
        }

    def _on_originals(self, metric: Metric) -> float | None:
        """The same for every codec and quality, hence of the first ones."""
        if metric.original is None:
            return None
        groups = next(iter(self._groups.values()))
        group = next(iter(groups.values()))
        found = [one.evidence[metric.original] for one in group if metric.original in one.evidence]
        return metric.combine(found)(np.ones(len(found))) if found else None


def _points_of(rates: Sequence[float | None], figures: Sequence[float | None]) -> list[Point | None]:
    return [
        None if rate is None or figure is None else Point(rate, figure)
        for rate, figure in zip(rates, figures, strict=True)
    ]


def _curves(points: Sequence[_OperatingPoint]) -> list[list[Point]]:
    """For each draw the points that have a figure in it."""
    return [[one for one in drawn if one is not None] for drawn in zip(*(point.drawn for point in points), strict=True)]


def _figure(point: _OperatingPoint) -> Figure | None:
    value = interval([None if one is None else one.value for one in point.drawn])
    first = point.drawn[0]
    return None if first is None or value is None else Figure(point.quality, first.bits_per_pixel, point.images, value)


def curve(metric: Metric, points: Sequence[Point]) -> Curve:
    """The curve through the points that pay; of a measure that falls as pictures get better, its negative."""
    sign = 1 if metric.higher_is_better else -1
    return Curve.through([Point(point.bits_per_pixel, sign * point.value) for point in points])


def figures_at(metric: Metric, points: Sequence[Point], rates: Sequence[float]) -> list[float | None]:
    """The figures at rates in bits per pixel, interpolated as the module's text says; None outside the points."""
    if metric.family != "fidelity":
        return linear_at(points, rates)
    found = monotone_at(curve(metric, points), rates)
    return found if metric.higher_is_better else [None if one is None else -one for one in found]
