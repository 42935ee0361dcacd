"""The files of a finished evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

from difficmh.baselines import BASELINES
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.page import render_page
from difficmh.evaluation.plots import curves_png
from difficmh.evaluation.report import table, to_json
from difficmh.evaluation.statistics import Metric
from difficmh.evaluation.summary import MetricSummary, Request, summarise
from difficmh.unreadable import Unreadable

EVALUATION = "evaluation.json"

REPORT_PACKAGES = ("jinja2", "matplotlib.figure")
"""What is imported only where a report is written."""


@dataclass(frozen=True)
class Findings:
    """What was measured by a plan.

    `kept` are summaries of metrics whose evidence is no longer there, `unreadable` pictures that were left out.
    """

    plan: Plan
    measurements: Sequence[Measurement]
    metrics: Sequence[Metric]
    kept: Sequence[MetricSummary] = ()
    unreadable: Unreadable = ()


def refuse_earlier(output: Path, overwrite: bool) -> None:
    """Raises ValueError where the folder holds an evaluation, which may have taken hours, unless to be overwritten."""
    if not overwrite and (output / EVALUATION).exists():
        raise ValueError(f"{output} holds an evaluation already: choose another place or --overwrite")


def prepare_output(output: Path) -> None:
    """Makes the folder, and finds out before hours of measuring whether `write_report` will be able to do its work.

    Raises ValueError where the folder cannot be written into or a package is missing.
    """
    for package in REPORT_PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(f"a report needs a package: pip install {package.partition('.')[0]}") from error
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ValueError(f"cannot write into {output}: {error}") from error


def write_report(output: Path, findings: Findings, request: Request) -> str:
    """Write `evaluation.json`, `curves.png` and `index.html` into the folder; the findings as text.

    BD-rates are against each of the baselines that took part. Raises ValueError where nothing was measured.
    """
    plan, measurements = findings.plan, findings.measurements
    codecs = dict.fromkeys(one.codec for one in measurements)
    references = [codec for codec in codecs if codec in BASELINES]
    summary = summarise(measurements, findings.metrics, references, request)
    summary = replace(summary, metrics=[*summary.metrics, *findings.kept], unreadable=findings.unreadable)
    output.mkdir(parents=True, exist_ok=True)
    (output / EVALUATION).write_text(to_json(summary, asdict(plan)), encoding="utf-8")
    (output / "curves.png").write_bytes(curves_png(summary.metrics))
    (output / "index.html").write_text(render_page(summary, measurements, plan), encoding="utf-8")
    return table(summary)
