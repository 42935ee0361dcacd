"""What an evaluation says about pairs of codecs that differ in one part: numbers, and a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from difficmh.evaluation.intervals import Interval, interval
from difficmh.evaluation.markdown import row
from difficmh.evaluation.measure import Measurement
from difficmh.evaluation.output import Findings
from difficmh.evaluation.report import written
from difficmh.evaluation.statistics import Metric
from difficmh.evaluation.summary import MetricSummary, Request, Summariser, figures_at, summarise


@dataclass(frozen=True)
class Comparison:
    """`part` against what is there instead; the two codecs are those of the evaluation by these names."""

    part: str
    against: str
    mode: str
    with_part: str
    without: str


@dataclass(frozen=True)
class Figures:
    """One measure of both codecs at equal bits per pixel.

    `difference` is with less without, drawn in pairs; it has no bounds where the evidence of a measure is not kept.
    """

    with_part: Interval | None
    without: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Result:
    """What a part is worth. `bd_rates` are bits with it against bits without at equal fidelity, in per cent."""

    comparison: Comparison
    bd_rates: dict[str, Interval | None]
    measures: dict[str, Figures]


def compare(findings: Findings, comparison: Comparison, request: Request) -> Result:
    """At the first rate of the request. Raises ValueError where the evaluation has no such codecs."""
    pair = (comparison.with_part, comparison.without)
    both = [one for one in findings.measurements if one.codec in pair]
    if missing := set(pair) - {one.codec for one in both}:
        raise ValueError(f"the evaluation has no {' and no '.join(sorted(missing))}")
    summary = summarise(both, findings.metrics, [comparison.without], request)
    measures = {}
    for found in summary.metrics:
        first, second = (_at_rate(found, codec) for codec in pair)
        difference = _advantages(both, found.metric, pair, request)[0]
        measures[found.metric.name] = Figures(first, second, difference)
    for found in findings.kept:
        first, second = (_at_rate(found, codec) for codec in pair)
        measures[found.metric.name] = Figures(first, second, _unbounded(first, second))
    rates = {
        found.metric.name: found.bd_rates.get(comparison.without, {}).get(comparison.with_part)
        for found in summary.metrics
        if found.metric.family == "fidelity"
    }
    return Result(comparison, rates, measures)


def _advantages(
    measurements: Sequence[Measurement], metric: Metric, pair: tuple[str, str], request: Request
) -> list[Interval | None]:
    """By how much the first codec of a pair exceeds the second in a metric, at each of the rates.

    Both are drawn on the same pictures, so that the interval is that of the difference: narrower than either codec's
    own where both find the same pictures hard. None where one of them does not reach the rate or was not so measured.
    """
    summariser = Summariser(measurements, request)
    curves = [summariser.curves(metric, codec) for codec in pair]
    if not all(curves):
        return [None for _ in request.rates]
    drawn = [
        _differences(*(figures_at(metric, points, request.rates) for points in both))
        for both in zip(*curves, strict=True)
    ]
    return [interval(differences) for differences in zip(*drawn, strict=True)]


def _differences(first: Sequence[float | None], second: Sequence[float | None]) -> list[float | None]:
    return [None if one is None or other is None else one - other for one, other in zip(first, second, strict=True)]


def _at_rate(found: MetricSummary, codec: str) -> Interval | None:
    return found.at_rates[codec][0] if codec in found.at_rates else None


def _unbounded(first: Interval | None, second: Interval | None) -> Interval | None:
    return None if first is None or second is None else Interval(first.value - second.value, None, None)


def markdown(results: Sequence[Result], metrics: Sequence[Metric]) -> str:
    """A row for each result: bits at equal fidelity, then differences at equal bits."""
    fidelity = [metric for metric in metrics if metric.family == "fidelity"]
    heads = ["part", "against", "mode", *(f"bits at equal {metric.title}, %" for metric in fidelity)]
    heads += [metric.title + ("" if metric.higher_is_better else ", lower is better") for metric in metrics]
    lines = [row(heads), row(["---"] * len(heads))]
    for result in results:
        about = result.comparison
        cells = [about.part, about.against, about.mode]
        cells += [written(result.bd_rates.get(metric.name), "+.1f") for metric in fidelity]
        lines.append(row([*cells, *(_cell(result.measures.get(metric.name)) for metric in metrics)]))
    return "\n".join(lines)


def _cell(figures: Figures | None) -> str:
    return written(figures.difference if figures else None, "+.3f")
