"""A summary as text for a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from difficmh.evaluation.intervals import Interval
from difficmh.evaluation.summary import MetricSummary, Summary
from difficmh.unreadable import left_out

TITLES = ("codec", "quality", "images", "bpp", "encode s", "decode s")


def table(summary: Summary) -> str:
    """The findings as plain text: what each quality costs, each metric at equal rates, BD-rates, what was left out."""
    rows = [
        (
            row.codec,
            f"{row.quality}",
            f"{row.images}",
            f"{row.bits_per_pixel.value:.4f}",
            f"{row.compress_seconds:.3f}",
            f"{row.decompress_seconds:.3f}",
        )
        for row in summary.rows
    ]
    lines = aligned([TITLES, *rows])
    for found in summary.metrics:
        if found.at_rates:
            lines += ["", *_metric_lines(found, summary.request.rates)]
    lines += ["", left_out(summary.unreadable)] if summary.unreadable else []
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell; all but the first are set to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([f"{row[0]:{first}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def _metric_lines(found: MetricSummary, rates: Sequence[float]) -> Iterator[str]:
    better = "" if found.metric.higher_is_better else ", lower is better"
    original = "" if found.on_originals is None else f", {found.on_originals:.3f} on the originals"
    yield f"{found.metric.title}{better}{original}; at bits per pixel"
    rows = [(codec, *map(written, values)) for codec, values in found.at_rates.items()]
    yield from aligned([("", *(f"{rate:g}" for rate in rates)), *rows])
    for reference, compared in found.bd_rates.items():
        if compared:
            listed = ", ".join(
                f"{codec} {written(rate, '+.1f')}{' %' if rate else ''}" for codec, rate in compared.items()
            )
            yield f"  BD-rate against {reference}: {listed}"


def written(value: Interval | None, form: str = ".3f", unit: str = "") -> str:
    """`30.123 [29.5, 31.2]`, without the bounds where there are none, or a dash."""
    if value is None:
        return "–"
    figure = f"{value.value:{form}}{unit}"
    if value.low is None or value.high is None:
        return figure
    bound = ".2f" if form == ".3f" else form  # a third digit of a bound says nothing
    return f"{figure} [{value.low:{bound}}, {value.high:{bound}}]"


def to_json(summary: Summary, plan: Mapping[str, Any]) -> str:
    """Everything in the summary, and the plan that it came from; intervals as value, low, high."""
    content = {
        "plan": dict(plan),
        "request": asdict(summary.request),
        "images": summary.images,
        "unreadable": dict(summary.unreadable),
        "rows": [asdict(row) for row in summary.rows],
        "metrics": {found.metric.name: _metric_json(found) for found in summary.metrics},
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _metric_json(found: MetricSummary) -> dict[str, Any]:
    metric = found.metric
    about = {name: value for name, value in vars(metric).items() if name not in ("name", "combine")}
    content = asdict(found)
    del content["metric"]
    return about | content
