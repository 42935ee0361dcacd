"""The tables of a finished evaluation as Markdown, for a model card or a report: from what `evaluation.json` holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from difficmh.evaluation.intervals import Interval
from difficmh.evaluation.report import written

DASH = "–"
Content = Mapping[str, Any]
Bounds = Mapping[str, Any]


def results(content: Content) -> str:
    """All tables, each under a heading of its own; `content` is that of `evaluation.json`."""
    parts = [*_rates(content), *_bd_rates(content), *_at_rates(content)]
    return "\n".join(parts).strip()


def _rates(content: Content) -> Iterator[str]:
    """What each quality of each codec costs, and its fidelity."""
    yield "### Each quality"
    yield ""
    metrics = [found for found in content["metrics"].values() if found["family"] == "fidelity"]
    titles = [found["title"] for found in metrics]
    yield from _header(["codec", "quality", "bpp", *titles, "compress (s)", "decompress (s)"])
    for point in content["rows"]:
        values = [_at_quality(found, point["codec"], point["quality"]) for found in metrics]
        seconds = [f"{point['compress_seconds']:.2f}", f"{point['decompress_seconds']:.2f}"]
        yield row([point["codec"], str(point["quality"]), f"{point['bits_per_pixel']['value']:.3f}", *values, *seconds])


def _at_quality(metric: Content, codec: str, quality: int) -> str:
    figures = metric["figures"].get(codec, [])
    return next((f"{one['value']['value']:.2f}" for one in figures if one["quality"] == quality), DASH)


def _bd_rates(content: Content) -> Iterator[str]:
    low, high = content["request"]["bd_range"]
    for found in content["metrics"].values():
        if not any(any(compared.values()) for compared in found["bd_rates"].values()):
            continue
        yield f"\n### BD-rate in {found['title']}, {low:g} to {high:g} bits per pixel\n"
        references = list(found["bd_rates"])
        yield from _header(["codec", *(f"against {reference}" for reference in references)])
        for codec in found["figures"]:
            compared = [found["bd_rates"][reference].get(codec) for reference in references]
            if any(compared):
                yield row([codec, *(interval(one, "+.1f", " %") for one in compared)])


def _at_rates(content: Content) -> Iterator[str]:
    rates: Sequence[float] = content["request"]["rates"]
    for found in content["metrics"].values():
        if not any(any(values) for values in found["at_rates"].values()):
            continue
        better = "" if found["higher_is_better"] else ", lower is better"
        yield f"\n### {found['title']}{better}\n"
        if found["note"]:
            yield f"{found['note']}.\n"
        yield from _header(["at bits per pixel", *(f"{rate:g}" for rate in rates)])
        form = ".0f" if _largest(found) >= 100 else ".2f"
        for codec, values in found["at_rates"].items():
            if any(values):
                yield row([codec, *(interval(one, form) for one in values)])


def _largest(metric: Content) -> float:
    return max((abs(one["value"]) for values in metric["at_rates"].values() for one in values if one), default=0.0)


def interval(value: Bounds | None, form: str, unit: str = "") -> str:
    """`0.40 [0.31, 0.51]` of a value with its bounds, in a format such as `.2f`; a dash for None."""
    return written(None if value is None else Interval(**value), form, unit)


def _header(names: Sequence[str]) -> Iterator[str]:
    yield row(names)
    yield "|" + "---|" * len(names)


def row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
