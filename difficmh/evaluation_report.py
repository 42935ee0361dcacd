"""What an evaluation found: means per quality, comparison at fixed rates, BD rates; as table, CSV, JSON and plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

from difficmh.evaluation import Measurement
from difficmh.rate_distortion import Curve, Point, bd_rate, quality_at

RATES = (0.1, 0.2, 0.3, 0.4)
METRICS = {"psnr": "PSNR (dB)", "ms_ssim_db": "MS-SSIM (dB)", "ssimulacra2": "SSIMULACRA 2"}


@dataclass(frozen=True)
class MeanRow:
    """Means over the images at one quality of one codec."""

    codec: str
    quality: int
    images: int
    bits_per_pixel: float
    psnr: float
    ms_ssim_db: float
    ssimulacra2: float | None
    compress_seconds: float
    decompress_seconds: float


@dataclass(frozen=True)
class Comparison:
    """`at_rate[metric][codec]` has one value per rate of `RATES`, None outside the codec's range.

    `bd_rate[metric][reference][codec]` is in per cent, negative where the codec needs fewer bits; None without overlap.
    """

    at_rate: dict[str, dict[str, list[float | None]]]
    bd_rate: dict[str, dict[str, dict[str, float | None]]]


def mean_rows(measurements: Sequence[Measurement]) -> list[MeanRow]:
    """In the order in which codecs and qualities first come."""
    groups: dict[tuple[str, int], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.codec, measurement.quality), []).append(measurement)
    return [_mean_row(*key, group) for key, group in groups.items()]


def _mean_row(codec: str, quality: int, group: Sequence[Measurement]) -> MeanRow:
    scores = [one.ssimulacra2 for one in group if one.ssimulacra2 is not None]
    return MeanRow(
        codec=codec,
        quality=quality,
        images=len(group),
        bits_per_pixel=fmean(one.bits_per_pixel for one in group),
        psnr=fmean(one.psnr for one in group),
        ms_ssim_db=fmean(one.ms_ssim_db for one in group),
        ssimulacra2=fmean(scores) if scores else None,
        compress_seconds=fmean(one.compress_seconds for one in group),
        decompress_seconds=fmean(one.decompress_seconds for one in group),
    )


def curves(rows: Sequence[MeanRow], metric: str) -> dict[str, Curve]:
    """Per codec the curve through its means; codecs without the metric are left out."""
    points: dict[str, list[Point]] = {}
    for row in rows:
        value = getattr(row, metric)
        if value is not None:
            points.setdefault(row.codec, []).append(Point(row.bits_per_pixel, value))
    return {codec: Curve.through(found) for codec, found in points.items()}


def compare(rows: Sequence[MeanRow], references: Sequence[str]) -> Comparison:
    """All codecs at fixed rates, and against each codec of `references`."""
    by_metric = {metric: curves(rows, metric) for metric in METRICS}
    by_metric = {metric: found for metric, found in by_metric.items() if found}
    return Comparison(
        at_rate={
            metric: {codec: [quality_at(curve, rate) for rate in RATES] for codec, curve in found.items()}
            for metric, found in by_metric.items()
        },
        bd_rate={
            metric: {
                reference: {codec: bd_rate(found[reference], curve) for codec, curve in found.items()}
                for reference in references
                if reference in found
            }
            for metric, found in by_metric.items()
        },
    )


def table(rows: Sequence[MeanRow], comparison: Comparison) -> str:
    """The findings as plain text."""
    lines = [f"{'codec':24}{'quality':>8}{'bpp':>8}{'PSNR':>8}{'MS-SSIM':>9}{'SSIMU2':>8}{'enc s':>8}{'dec s':>8}"]
    lines += [
        f"{row.codec:24}{row.quality:8d}{row.bits_per_pixel:8.3f}{row.psnr:8.2f}{row.ms_ssim_db:9.2f}"
        f"{_number(row.ssimulacra2, 8, 1)}{row.compress_seconds:8.3f}{row.decompress_seconds:8.3f}"
        for row in rows
    ]
    for metric, by_codec in comparison.at_rate.items():
        lines += ["", f"{METRICS[metric] + ' at bpp':24}" + "".join(f"{rate:8.1f}" for rate in RATES)]
        lines += [f"{codec:24}" + "".join(_number(v, 8, 2) for v in values) for codec, values in by_codec.items()]
        for reference, rates in comparison.bd_rate[metric].items():
            found = ", ".join(f"{codec} {_number(rate, 0, 1)}%" for codec, rate in rates.items() if codec != reference)
            lines.append(f"BD rate against {reference}: {found}")
    return "\n".join(lines)


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'–':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def write_report(output: Path, measurements: Sequence[Measurement], references: Sequence[str]) -> str:
    """Write `measurements.csv`, `evaluation.json` and `curves.png` into the folder; returns the table."""
    output.mkdir(parents=True, exist_ok=True)
    rows = mean_rows(measurements)
    comparison = compare(rows, references)
    with (output / "measurements.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Measurement)])
        writer.writeheader()
        writer.writerows(asdict(measurement) for measurement in measurements)
    content = {"means": [asdict(row) for row in rows], "rates": RATES, **asdict(comparison)}
    (output / "evaluation.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    plot_curves(output / "curves.png", rows)
    return table(rows, comparison)


def plot_curves(path: Path, rows: Sequence[MeanRow]) -> None:
    """One panel per metric, one line per codec, over the rate."""
    from matplotlib.figure import Figure

    metrics = [metric for metric in METRICS if curves(rows, metric)]
    figure = Figure(figsize=(5.5 * len(metrics), 4.5), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for codec in dict.fromkeys(row.codec for row in rows):
            points = sorted((row.bits_per_pixel, getattr(row, metric)) for row in rows if row.codec == codec)
            axes.plot(*zip(*points, strict=True), marker="o", label=codec)
        axes.set(xlabel="bits per pixel", ylabel=METRICS[metric], xscale="log")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend()
    figure.savefig(path)
