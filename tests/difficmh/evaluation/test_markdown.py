"""The tables of an evaluation as Markdown."""

from __future__ import annotations

import json

from difficmh.evaluation.fidelity import MS_SSIM, PSNR
from difficmh.evaluation.markdown import interval, results
from difficmh.evaluation.report import to_json
from difficmh.evaluation.summary import Request, summarise
from tests.difficmh.evaluation.pictures import synthetic


def test_every_table_is_there_with_its_numbers() -> None:
    measurements = synthetic("webp", 1.0) + synthetic("lite", 0.75)
    summary = summarise(measurements, [PSNR, MS_SSIM], ["webp"], Request(rates=(0.05, 0.1, 9.0), resamples=20))
    lines = results(json.loads(to_json(summary, {}))).splitlines()
    assert "| codec | quality | bpp | PSNR (dB) | MS-SSIM (dB) | compress (s) | decompress (s) |" in lines
    assert any(line.startswith("| webp | 1 | 0.050 | 23.00 |") for line in lines)
    assert "### BD-rate in PSNR (dB), 0.05 to 0.5 bits per pixel" in lines
    assert "| lite | -25.0 % [-25.0, -25.0] |" in lines
    assert "| at bits per pixel | 0.05 | 0.1 | 9 |" in lines
    assert any(line.startswith("| webp | 23.00 ") and line.endswith("| – |") for line in lines)


def test_bounds_that_are_not_there_are_not_written() -> None:
    assert interval({"value": 0.4, "low": None, "high": None}, ".2f") == "0.40"
    assert interval({"value": 0.4, "low": 0.31, "high": 0.51}, ".2f") == "0.40 [0.31, 0.51]"
    assert interval(None, ".2f") == "–"
