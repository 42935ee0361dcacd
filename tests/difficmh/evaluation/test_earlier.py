"""An evaluation summarised again: the same figures from the files as from the measurements, and other rates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difficmh.evaluation.detection import Judged
from difficmh.evaluation.earlier import read_earlier
from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.frechet import MomentPair, Moments, Patches
from difficmh.evaluation.measure import Measurement, Plan
from difficmh.evaluation.output import Findings, write_report
from difficmh.evaluation.rows import flat_rows, measurements_of
from difficmh.evaluation.statistics import Counts
from difficmh.evaluation.summary import Request
from difficmh.evaluation.tasks import DETECTION_AGREEMENT, DETECTION_AGREEMENT_COMMON, DETECTION_MAP, ON_ORIGINALS
from tests.difficmh.evaluation.pictures import measurement, synthetic

METRICS = [PSNR, MS_SSIM, *Patches.metrics, DETECTION_MAP, DETECTION_AGREEMENT_COMMON, DETECTION_AGREEMENT]
REQUEST = Request(rates=(0.1, 0.2), resamples=20)


def full(one: Measurement) -> Measurement:
    """With evidence of every kind, better at higher qualities; nothing is detected in picture b."""
    moments = Moments(9, np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    worse = replace(moments, mean=np.full(2, 8 - one.quality, np.float32))
    evidence: dict[str, Any] = {**one.evidence, "frechet_lite2": MomentPair(moments, worse)}
    if one.image == "a":
        judged = Judged((("car", 0.9, True), ("car", 0.2, one.quality > 2)), (("car", 2),))
        evidence |= {
            "detection_map50": judged,
            ON_ORIGINALS: Judged((("car", 0.9, True),), (("car", 1),)),
            "detection_agreement_map50_common": replace(judged, objects=(("car", 6), ("racket", 1))),
            "detection_agreement_f1": Counts(one.quality, 1, 2),
        }
    return replace(one, evidence=evidence, crop=b"crop", original_crop=b"original" if one.quality == 1 else None)


MEASUREMENTS = [full(one) for one in synthetic("lite", 0.75) + synthetic("webp", 1.0)]


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """The JSON of an evaluation of `MEASUREMENTS`."""
    plan = Plan(("difficmh:lite", "webp"), ("frechet",), crop_rate=9.0)
    write_report(tmp_path, Findings(plan, MEASUREMENTS, METRICS), REQUEST)
    written: dict[str, Any] = json.loads((tmp_path / "evaluation.json").read_text())
    return written


def test_rows_say_all_but_moments() -> None:
    rows = flat_rows(MEASUREMENTS)
    assert list(rows[0]) == list(rows[-1])
    without = [
        replace(one, evidence={name: value for name, value in one.evidence.items() if name != "frechet_lite2"})
        for one in MEASUREMENTS
    ]
    assert measurements_of(rows) == without


def test_the_same_request_gives_the_same_report(tmp_path: Path, content: dict[str, Any]) -> None:
    again = read_earlier(content, flat_rows(MEASUREMENTS), REQUEST.rates)
    write_report(tmp_path / "again", again, REQUEST)
    assert json.loads((tmp_path / "again" / "evaluation.json").read_text()) == content


def test_distances_are_read_off_the_curve_at_other_rates(content: dict[str, Any]) -> None:
    (kept,) = read_earlier(content, flat_rows(MEASUREMENTS), (0.1, 0.15, 5.0)).kept
    known, between, outside = kept.at_rates["webp"]
    earlier = content["metrics"]["frechet_lite2"]["at_rates"]["webp"][0]
    assert known is not None
    assert between is not None
    assert vars(known) == earlier
    assert known.low is not None
    assert (between.low, outside) == (None, None)
    assert kept.figures["webp"][2].value.value < between.value < known.value


@pytest.mark.parametrize("missing", ["plan", "metrics", "request"])
def test_another_versions_summary(content: dict[str, Any], missing: str) -> None:
    del content[missing]
    with pytest.raises(ValueError, match="another version wrote it"):
        read_earlier(content, flat_rows(MEASUREMENTS))


def test_another_versions_rows() -> None:
    (row,) = flat_rows([measurement("x", 1, "a", 0.1, psnr=30.0)])
    del row["crop"]
    with pytest.raises(ValueError, match="have no crop"):
        measurements_of([row])
