"""A summary as text for a terminal, as JSON, and the measurements as flat rows for tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from difficmh.evaluation.intervals import Interval
from difficmh.evaluation.measure import Measurement
from difficmh.evaluation.statistics import Counts
from difficmh.evaluation.summary import MetricSummary, Summary


def table(summary: Summary) -> str:
    """The findings as plain text: what each quality costs, each metric at equal rates, BD-rates."""
    lines = [f"{'codec':26}{'quality':>8}{'images':>8}{'bpp':>9}{'encode s':>10}{'decode s':>10}"]
    lines += [
        f"{row.codec:26}{row.quality:8d}{row.images:8d}{row.bits_per_pixel.value:9.4f}"
        f"{row.compress_seconds:10.3f}{row.decompress_seconds:10.3f}"
        for row in summary.rows
    ]
    for found in summary.metrics:
        lines += ["", *_metric_lines(found, summary.request.rates)]
    return "\n".join(lines)


def _metric_lines(found: MetricSummary, rates: Sequence[float]) -> Iterator[str]:
    better = "" if found.metric.higher_is_better else ", lower is better"
    original = "" if found.on_originals is None else f", {found.on_originals:.3f} on the originals"
    yield f"{found.metric.title}{better}{original}; at bits per pixel"
    yield f"{'':26}" + "".join(f"{rate:>24g}" for rate in rates)
    for codec, values in found.at_rates.items():
        yield f"{codec:26}" + "".join(f"{written(value):>24}" for value in values)
    for reference, compared in found.bd_rates.items():
        listed = ", ".join(f"{codec} {written(rate, '+.1f')} %" for codec, rate in compared.items())
        yield f"  BD-rate against {reference}: {listed}"


def written(value: Interval | None, form: str = ".3f") -> str:
    """`30.123 [29.5, 31.2]`, without the bounds where there are none, or a dash."""
    if value is None:
        return "–"
    bounds = (
        "" if value.low is None or value.high is None else f" [{value.low:{_short(form)}}, {value.high:{_short(form)}}]"
    )
    return f"{value.value:{form}}{bounds}"


def _short(form: str) -> str:
    return form if form != ".3f" else ".2f"


def to_json(summary: Summary, plan: Mapping[str, Any]) -> str:
    """Everything in the summary, and the plan that it came from; intervals as value, low, high."""
    content = {
        "plan": dict(plan),
        "request": asdict(summary.request),
        "images": summary.images,
        "rows": [asdict(row) for row in summary.rows],
        "metrics": {found.metric.name: _metric_json(found) for found in summary.metrics},
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _metric_json(found: MetricSummary) -> dict[str, Any]:
    metric = found.metric
    about = {"title": metric.title, "higher_is_better": metric.higher_is_better, "note": metric.note}
    content = asdict(found)
    del content["metric"]
    return about | content


def flat_rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The rows of a table: `flat_row` of each, with the columns of all."""
    rows = [flat_row(one) for one in measurements]
    empty = dict.fromkeys(name for row in rows for name in row)
    return [empty | row for row in rows]


def flat_row(measurement: Measurement) -> dict[str, str | int | float | None]:
    """One measurement without what is no number: scores by the metric's name, counts as `…_hits`, `…_extra`, …"""
    row = {
        name: value for name, value in vars(measurement).items() if name not in ("evidence", "crop", "original_crop")
    }
    for name, value in measurement.evidence.items():
        if isinstance(value, Counts):
            row |= {f"{name}_{part}": count for part, count in asdict(value).items()}
        elif isinstance(value, (int, float)):
            row[name] = float(value)
    return row
