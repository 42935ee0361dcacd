"""An earlier evaluation, read from the files that it wrote: to be summarised for other rates without measuring again.

Everything is computed anew from the rows of its measurements, intervals included. Fréchet distances cannot be: their
evidence is too large for a table. Their figures at each quality stay as they were, and so do those at rates that the
earlier evaluation had; at other rates they are read off the curve, without an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from difficmh.evaluation.detection import Judged, common_precision, mean_average_precision
from difficmh.evaluation.intervals import Interval
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.output import Findings
from difficmh.evaluation.rows import measurements_of
from difficmh.evaluation.statistics import Counts, Metric, Statistic, f1, mean
from difficmh.evaluation.summary import Figure, MetricSummary, figures_at
from difficmh.rate_distortion import Point

COMBINATIONS: Mapping[type, Callable[[Sequence[Any]], Statistic]] = {Counts: f1, Judged: mean_average_precision}
"""How evidence that is no plain number makes one figure."""

NAMED: Mapping[str, Callable[[Sequence[Any]], Statistic]] = {"detection_agreement_map50_common": common_precision}
"""The same of metrics that share their kind of evidence with another."""


def read_earlier(
    content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], rates: Sequence[float] = ()
) -> Findings:
    """Findings of the content of `evaluation.json` and the rows of `measurements.parquet`, for comparison at `rates`.

    Raises ValueError for files that another version wrote.
    """
    measurements = measurements_of(rows)
    try:
        plan = Plan(**{name: _tuple(value) for name, value in content["plan"].items()})
        metrics = {name: _metric(name, about, measurements) for name, about in content["metrics"].items()}
        kept = [
            _kept(metric, content["metrics"][name], content["request"]["rates"], rates)
            for name, metric in metrics.items()
            if metric.family == "distribution"
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"evaluation.json: another version wrote it ({error}), measure again") from error
    unreadable = list(content.get("unreadable", {}).items())
    computed = [one for one in metrics.values() if one.family != "distribution"]
    return Findings(plan, measurements, computed, kept, unreadable)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _metric(name: str, about: Mapping[str, Any], measurements: Sequence[Measurement]) -> Metric:
    """What combines the evidence follows from its name or its kind."""
    evidence = next((one.evidence[name] for one in measurements if name in one.evidence), None)
    combine = NAMED.get(name) or COMBINATIONS.get(type(evidence), mean)
    described = {field: about[field] for field in ("title", "family", "higher_is_better", "original", "note")}
    return Metric(name, combine=combine, **described)


def _kept(
    metric: Metric, content: Mapping[str, Any], earlier: Sequence[float], rates: Sequence[float]
) -> MetricSummary:
    figures = {
        codec: [Figure(**{**one, "value": Interval(**one["value"])}) for one in listed]
        for codec, listed in content["figures"].items()
    }
    at_rates = {}
    for codec, found in figures.items():
        known = dict(zip(earlier, content["at_rates"][codec], strict=True))
        points = [Point(one.bits_per_pixel, one.value.value) for one in found]
        at_rates[codec] = [
            _interval(known[rate]) if rate in known else _unbounded(figure)
            for rate, figure in zip(rates, figures_at(metric, points, rates), strict=True)
        ]
    return MetricSummary(metric, figures, at_rates, {}, content["on_originals"])


def _interval(content: Mapping[str, Any] | None) -> Interval | None:
    return None if content is None else Interval(**content)


def _unbounded(value: float | None) -> Interval | None:
    return None if value is None else Interval(value, None, None)
