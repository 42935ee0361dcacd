"""Figures at equal rates and BD-rates, from measurements whose answers are known in closed form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.markdown import results
from difficmh.evaluation.report import table, to_json
from difficmh.evaluation.statistics import Counts, Metric, f1, mean
from difficmh.evaluation.summary import MetricSummary, Request, Summary, summarise
from difficmh.evaluation.tasks import DETECTION_AGREEMENT
from tests.difficmh.evaluation.pictures import measurement, synthetic

REQUEST = Request(resamples=50)
TWO = synthetic("webp", 1.0) + synthetic("lite", 0.75)


def found(summary: Summary, name: str) -> MetricSummary:
    return next(one for one in summary.metrics if one.metric.name == name)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise(TWO, [PSNR, MS_SSIM], ["webp"], REQUEST)


def test_means_are_over_the_images_of_a_quality(summary: Summary) -> None:
    rows = [row for row in summary.rows if row.codec == "webp"]
    assert [row.quality for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].images == 2
    assert rows[0].bits_per_pixel.value == pytest.approx(0.05)
    assert (rows[0].bits_per_pixel.low, rows[0].bits_per_pixel.high) == pytest.approx((0.025, 0.075))


def test_a_constant_saving_is_certain_as_draws_are_paired(summary: Summary) -> None:
    """Rates differ between pictures by a factor of 3, and so do those of each draw, but the saving never does."""
    rate = found(summary, "psnr").bd_rates["webp"]["lite"]
    assert rate is not None
    assert (rate.value, rate.low, rate.high) == pytest.approx((-25, -25, -25), abs=1e-6)
    assert "webp" not in found(summary, "psnr").bd_rates["webp"]


def test_figures_at_equal_rates(summary: Summary) -> None:
    at_rates = [one.value if one else None for one in found(summary, "psnr").at_rates["webp"]]
    assert at_rates[:3] == pytest.approx([23, 26, 29])
    assert found(summary, "psnr").figures["lite"][0].bits_per_pixel == pytest.approx(0.0375)


def test_the_same_seed_gives_the_same_intervals(summary: Summary) -> None:
    assert to_json(summarise(TWO, [PSNR, MS_SSIM], ["webp"], REQUEST), {}) == to_json(summary, {})


def test_a_range_outside_a_curve_gives_no_bd_rate() -> None:
    far = summarise(TWO, [PSNR], ["webp"], replace(REQUEST, bd_range=(2.0, 3.0)))
    assert found(far, "psnr").bd_rates["webp"]["lite"] is None


def test_measures_that_fall_as_pictures_get_better() -> None:
    distance = Metric("lpips", "LPIPS", mean, higher_is_better=False)
    turned = [replace(one, evidence={"lpips": -float(one.evidence["psnr"])}) for one in TWO]
    summary = summarise(turned, [distance], ["webp"], REQUEST)
    rate = found(summary, "lpips").bd_rates["webp"]["lite"]
    assert rate is not None
    assert rate.value == pytest.approx(-25, abs=1e-6)
    at = found(summary, "lpips").at_rates["webp"][0]
    assert at is not None
    assert at.value == pytest.approx(-23)


def test_tasks_are_interpolated_through_every_point_and_have_no_bd_rate() -> None:
    """F1 of 1, 0 and 1 at 0.1, 0.2 and 0.4 bits per pixel: the worse point in the middle counts."""
    counts = [Counts(1, 0, 0), Counts(0, 1, 1), Counts(1, 0, 0)]
    measured = [
        measurement("x", quality, "a", rate, detection_agreement_f1=one)
        for quality, (rate, one) in enumerate(zip((0.1, 0.2, 0.4), counts, strict=True))
    ]
    one = found(summarise(measured, [DETECTION_AGREEMENT], ["x"], REQUEST), "detection_agreement_f1")
    assert [value and value.value for value in one.at_rates["x"]] == pytest.approx(
        [None, 1.0, 0.0, 0.585, 1.0], abs=1e-3
    )
    assert one.bd_rates == {}


def test_metrics_of_some_pictures_are_at_the_rates_of_those() -> None:
    measured = [measurement("x", 1, "a", 0.1, psnr=30.0), measurement("x", 1, "b", 0.5)]
    (figure,) = found(summarise(measured, [PSNR], [], REQUEST), "psnr").figures["x"]
    assert (figure.images, figure.bits_per_pixel, figure.value.value) == (1, 0.1, 30)
    assert figure.value.low is None, "one picture in two: too many draws are without it"


def test_what_the_originals_give() -> None:
    metric = Metric("f", "F", f1, family="task", original="f_on_originals")
    measured = [measurement("x", 1, "a", 0.1, f=Counts(0, 1, 1), f_on_originals=Counts(1, 1, 1))]
    assert found(summarise(measured, [metric], [], REQUEST), "f").on_originals == 0.5


def test_nothing_measured() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        summarise([], [PSNR], [], REQUEST)


def test_columns_are_as_wide_as_their_cells() -> None:
    """They ran into each other where a figure has many digits."""
    wide = Metric("wide", "Wide", mean, family="task")
    measured = [
        measurement(codec, quality, image, 0.1 * quality, wide=value)
        for codec in ("webp", "a codec of a longer name")
        for quality in (1, 2)
        for image, value in (("a", -123456.0), ("b", 987654.0))
    ]
    lines = table(summarise(measured, [wide], [], replace(REQUEST, rates=(0.1, 0.9)))).splitlines()
    assert lines[1] == f"{'webp':24}        1       2  0.1000     0.500     0.500"
    assert lines[-3] == f"{'':24}{'0.1':>36}  0.9"
    assert lines[-1] == "a codec of a longer name  432099.000 [-123456.00, 987654.00]    –"


def test_nothing_to_compare_is_not_written() -> None:
    """A codec alone, BD-rates out of range, and a metric of no picture."""
    alone = [one for one in TWO if one.codec == "webp"]
    labels = Metric("labels", "mAP@50 against labels", mean, family="task")
    text = table(summarise(alone, [PSNR, labels], ["webp"], REQUEST))
    assert "PSNR" in text
    assert [words for words in ("BD-rate", "mAP@50") if words in text] == []
    far = summarise(TWO, [PSNR], ["webp"], replace(REQUEST, bd_range=(2.0, 3.0)))
    assert "  BD-rate against webp: lite –" in table(far).splitlines()
    content = json.loads(to_json(summarise(alone, [PSNR, labels], ["webp"], REQUEST), {}))
    assert [words for words in ("BD-rate", "mAP@50") if words in results(content)] == []


def test_table_and_json(summary: Summary) -> None:
    text = table(summary)
    assert "BD-rate against webp: lite -25.0 [-25.0, -25.0] %" in text
    content = json.loads(to_json(summary, {"codecs": ["webp", "lite"]}))
    assert content["plan"]["codecs"] == ["webp", "lite"]
    assert content["metrics"]["psnr"]["bd_rates"]["webp"]["lite"]["value"] == pytest.approx(-25)
    assert len(content["rows"]) == 10
