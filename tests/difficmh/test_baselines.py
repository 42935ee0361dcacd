"""The codecs of Pillow that evaluations compare with."""

from __future__ import annotations

import numpy as np
import pytest

from difficmh.baselines import BASELINES, load_baseline
from difficmh.metrics import psnr
from tests.difficmh.test_metrics import photo


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_more_quality_costs_more_bytes_and_comes_closer(name: str) -> None:
    baseline, image = load_baseline(name), photo(48, 64)
    small, large = (baseline.compress(image, quality) for quality in (baseline.qualities[0], baseline.qualities[-1]))
    assert len(small) < len(large)
    worse, better = baseline.decompress(small), baseline.decompress(large)
    assert better.shape == image.shape
    assert better.dtype == np.uint8
    assert psnr(image, worse) < psnr(image, better)


def test_unknown_baseline_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="jpeg, webp, avif"):
        load_baseline("jpeg2000")
