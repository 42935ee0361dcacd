"""The files of a finished evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from difficmh.baselines import BASELINES
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.page import render_page
from difficmh.evaluation.plots import curves_png
from difficmh.evaluation.report import table, to_json
from difficmh.evaluation.statistics import Metric
from difficmh.evaluation.summary import Request, summarise


def write_report(
    output: Path, measurements: Sequence[Measurement], metrics: Sequence[Metric], plan: Plan, request: Request
) -> str:
    """Write `evaluation.json`, `curves.png` and `index.html` into the folder; the findings as text.

    BD-rates are against each of the baselines that took part.
    """
    codecs = dict.fromkeys(one.codec for one in measurements)
    summary = summarise(measurements, metrics, [codec for codec in codecs if codec in BASELINES], request)
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.json").write_text(to_json(summary, asdict(plan)), encoding="utf-8")
    (output / "curves.png").write_bytes(curves_png(summary.metrics))
    (output / "index.html").write_text(render_page(summary, measurements, plan), encoding="utf-8")
    return table(summary)
