"""The benchmark of effort: what it reports, and that savings are measured the right way round."""

from __future__ import annotations

import json

import pytest

from benchmarks import effort as benchmark
from benchmarks.effort import Measured


def test_each_effort_is_measured_at_each_quality(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = [picture[:192, :192] for picture in benchmark.benchmark_images(1)]
    monkeypatch.setattr(benchmark, "benchmark_images", lambda count: cut[:count])
    benchmark.main(["--images", "1", "--efforts", "0", "4", "--qualities", "2", "5", "--threads", "1"])
    report = json.loads(capsys.readouterr().out)
    assert [(each["effort"], each["quality"]) for each in report["points"]] == [(0, 2), (0, 5), (4, 2), (4, 5)]
    (saved,) = report["bd_rate"]
    assert saved["effort"] == 4
    assert saved["ms_ssim"] < 0
    assert saved["times as slow"] > 1


def test_fewer_bits_are_negative() -> None:
    plain = [Measured(0, quality, 0.1 * quality, 20.0 + quality, 5.0 + quality, 1.0) for quality in (1, 2, 3)]
    halved = [Measured(9, quality, 0.05 * quality, 20.0 + quality, 5.0 + quality, 3.0) for quality in (1, 2, 3)]
    saved = benchmark.savings([*plain, *halved], 9, 0)
    assert saved["psnr"] == pytest.approx(-50)
    assert saved["ms_ssim"] == pytest.approx(-50)
    assert saved["times as slow"] == pytest.approx(3)
