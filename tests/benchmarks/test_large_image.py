"""The memory benchmark for large pictures: its picture, its processes and its report, at a small size."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import difficmh
from benchmarks import large_image as benchmark

SMALL = benchmark.Setting(codec="lite", quality=1, megapixels=0.02)


@pytest.mark.parametrize("megapixels", [0.02, 4, 100])
def test_size_follows_the_megapixels(megapixels: float) -> None:
    height, width = benchmark.picture_size(megapixels)
    assert height * width == pytest.approx(megapixels * 1e6, rel=0.01)
    assert width / height == pytest.approx(4 / 3, rel=0.02)


def test_the_picture_is_the_same_every_time_and_not_flat() -> None:
    picture = benchmark.synthetic_picture(90, 120)
    assert picture.shape == (90, 120, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, benchmark.synthetic_picture(90, 120))
    assert len({row.tobytes() for row in picture}) == 90
    assert picture.std() > 20


def test_summary_sets_each_peak_beside_the_target() -> None:
    report = benchmark.summary(SMALL, {"compress": 1000.4, "full": 2000.0}, stream_bytes=2500)
    assert report["peak_mib"]["compress"] == {"measured": 1000, "target": 4096}
    assert report["bits_per_pixel"] == pytest.approx(1.0, abs=0.02)
    assert report["setting"] == {"codec": "lite", "quality": 1, "megapixels": 0.02}


def test_a_step_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        benchmark.peak_of_step(SMALL, "preview", tmp_path)  # nothing was compressed there


@pytest.mark.slow
@pytest.mark.timeout(300)  # a process with torch and the tagger; slow where other work takes the cores
def test_every_step_runs_and_a_process_is_measured(tmp_path: Path) -> None:
    assert 100 < benchmark.peak_of_step(SMALL, "compress", tmp_path) < 4096
    described = difficmh.inspect((tmp_path / benchmark.STREAM).read_bytes())
    assert (described.height, described.width) == benchmark.picture_size(SMALL.megapixels)
    for step in ("preview", "full"):
        benchmark.run_step(SMALL, step, tmp_path)
