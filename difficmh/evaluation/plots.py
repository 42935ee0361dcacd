"""Rate–metric curves with confidence intervals, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from difficmh.evaluation.summary import Figure, MetricSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = (5.6, 4.2)
"""Inches of one panel."""

COLUMNS = 3


def curves_png(metrics: Sequence[MetricSummary]) -> bytes:
    """One panel per metric that has figures, one line per codec over the rate, in the same colours in every panel."""
    from matplotlib.figure import Figure as Canvas

    shown = [found for found in metrics if any(found.figures.values())]
    codecs = list(dict.fromkeys(codec for found in shown for codec in found.figures))
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    canvas = Canvas(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for axes, found in zip(panels, shown, strict=False):
        _draw(axes, found, codecs)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    if shown:
        panels[0].legend(fontsize="small")
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _draw(axes: Axes, found: MetricSummary, codecs: Sequence[str]) -> None:
    for codec, figures in found.figures.items():
        _draw_line(axes, codec, f"C{codecs.index(codec)}", sorted(figures, key=lambda one: one.bits_per_pixel))
    if found.on_originals is not None:
        axes.axhline(found.on_originals, color="0.4", linestyle="--", linewidth=1)
    better = "" if found.metric.higher_is_better else " (lower is better)"
    axes.set(xlabel="bits per pixel", ylabel=found.metric.title + better, xscale="log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    axes.grid(alpha=0.3, which="both")


def _draw_line(axes: Axes, codec: str, colour: str, figures: Sequence[Figure]) -> None:
    rates: Any = [one.bits_per_pixel for one in figures]
    axes.plot(rates, [one.value.value for one in figures], marker="o", markersize=4, color=colour, label=codec)
    bounded = [one for one in figures if one.value.low is not None and one.value.high is not None]
    low: Any = [one.value.low for one in bounded]
    high: Any = [one.value.high for one in bounded]
    axes.fill_between([one.bits_per_pixel for one in bounded], low, high, color=colour, alpha=0.12, linewidth=0)
