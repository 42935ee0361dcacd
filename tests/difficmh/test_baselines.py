"""The codecs of Pillow that evaluations compare with."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from difficmh.baselines import BASELINES, jxl_distance, load_baseline
from difficmh.metrics import psnr
from tests.difficmh.test_metrics import photo


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_more_quality_costs_more_bytes_and_comes_closer(name: str) -> None:
    if name == "jpegxl":
        pytest.importorskip("pyjpegxl")
    baseline, image = load_baseline(name), photo(48, 64)
    small, large = (baseline.compress(image, quality) for quality in (baseline.qualities[0], baseline.qualities[-1]))
    assert len(small) < len(large)
    worse, better = baseline.decompress(small), baseline.decompress(large)
    assert better.shape == image.shape
    assert better.dtype == np.uint8
    assert psnr(image, worse) < psnr(image, better)


def test_unknown_baseline_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="jpeg, webp, avif, jpegxl"):
        load_baseline("jpeg2000")


def test_qualities_of_ones_own() -> None:
    assert load_baseline("webp", (7, 9)).qualities == (7, 9)
    with pytest.raises(ValueError, match="qualities from 0 to 100, not 101"):
        load_baseline("jpeg", (5, 101))
    with pytest.raises(ValueError, match="qualities from 0 to 100, not -5"):
        load_baseline("jpeg", (-5, 5))


def test_distances_of_jpeg_xl_are_those_of_its_own_encoder() -> None:
    assert [jxl_distance(quality) for quality in (0, 30, 90, 100)] == pytest.approx([25, 6.4, 1, 0.1])
    assert jxl_distance(29) == pytest.approx(jxl_distance(30), abs=0.2)


def test_a_missing_jpeg_xl_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyjpegxl", None)
    with pytest.raises(ValueError, match="pip install pyjpegxl"):
        load_baseline("jpegxl")
