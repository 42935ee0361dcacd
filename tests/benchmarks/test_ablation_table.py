"""Pairs of codecs whose difference is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.ablation_table import Comparison, Result, compare, markdown
from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.frechet import Patches
from difficmh.evaluation.intervals import Interval
from difficmh.evaluation.measure import Plan
from difficmh.evaluation.output import Findings
from difficmh.evaluation.summary import Figure, MetricSummary, Request
from difficmh.evaluation.tasks import CLASS_AGREEMENT
from tests.difficmh.evaluation.pictures import synthetic

PAIR = Comparison("the part", "nothing", "full", "lite full", "lite full, no tags")
REQUEST = Request((0.1,), resamples=40)
(FRECHET,) = Patches.metrics


def findings() -> Findings:
    """With the part three quarters of the bits are enough; other codecs are there too."""
    measured = [*synthetic(PAIR.with_part, 0.75), *synthetic(PAIR.without, 1.0), *synthetic("webp", 0.1)]
    at = {
        PAIR.with_part: [Interval(390.0, 380.0, 400.0)],
        PAIR.without: [Interval(410.0, 400.0, 420.0)],
        "webp": [None],
    }
    kept = MetricSummary(FRECHET, {name: [Figure(1, 0.1, 2, Interval(1.0, None, None))] for name in at}, at, {})
    return Findings(Plan(()), measured, [PSNR, MS_SSIM, CLASS_AGREEMENT], [kept])


@pytest.fixture(scope="module")
def result() -> Result:
    return compare(findings(), PAIR, REQUEST)


def test_what_a_part_saves_and_gains(result: Result) -> None:
    saved, gained = result.bd_rates["psnr"], result.measures["psnr"]
    assert saved is not None
    assert (saved.value, saved.low) == pytest.approx((-25, -25), abs=1e-6)
    assert gained.with_part is not None
    assert gained.without is not None
    assert gained.difference is not None
    assert gained.difference.value == pytest.approx(gained.with_part.value - gained.without.value)
    assert gained.difference.value == pytest.approx(3 * math.log2(1 / 0.75), abs=0.02)


def test_differences_are_drawn_in_pairs(result: Result) -> None:
    """Both pictures gain the same, so the gain is certain although the figures themselves are not."""
    gained = result.measures["psnr"]
    assert gained.difference is not None
    assert gained.difference.low == pytest.approx(gained.difference.high, abs=0.05)
    assert gained.with_part is not None
    assert gained.with_part.low is not None
    assert gained.with_part.high is not None
    assert gained.with_part.high - gained.with_part.low > 1


def test_a_kept_measure_has_a_difference_without_bounds(result: Result) -> None:
    assert result.measures["frechet_lite2"].difference == Interval(-20.0, None, None)
    assert "frechet_lite2" not in result.bd_rates


def test_a_codec_that_was_not_measured() -> None:
    with pytest.raises(ValueError, match="the evaluation has no lite preview"):
        compare(findings(), replace(PAIR, without="lite preview"), REQUEST)


def test_a_row_in_markdown(result: Result) -> None:
    table = markdown([result], [PSNR, CLASS_AGREEMENT, FRECHET])
    head, _, row = table.splitlines()
    assert head.startswith("| part | against | mode | bits at equal PSNR (dB), % | PSNR (dB) | same ImageNet class")
    assert head.endswith("Lite2 patches, lower is better |")
    assert row.startswith("| the part | nothing | full | -25.0 [-25.0, -25.0] | +1.2")
    assert row.endswith("| – | -20.000 |"), "nothing was classified; the distance falls by 20"
