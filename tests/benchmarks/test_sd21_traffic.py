"""The count of a denoising step's work, on small networks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from benchmarks import sd21_traffic as benchmark


def test_an_operation_is_counted_with_what_it_reads_and_writes_and_a_view_is_not() -> None:
    x = torch.zeros(8, 4)
    with benchmark.Traffic() as traffic:
        x.t().view(4, 8)
        torch.cat((x, x + 1))
    assert traffic.calls == {"add": 1, "cat": 1}
    assert traffic.bytes == {"add": 2 * 128, "cat": 4 * 128}


def test_a_step_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    def count(batch: str) -> dict[str, Any]:
        benchmark.main(["--networks", "small", "--size", "64", "--batch", batch])
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    one, two = count("1"), count("2")
    assert one["step, operations"] == two["step, operations"] > 100
    assert two["step, TFLOP"] == pytest.approx(2 * one["step, TFLOP"], rel=0.1)
    assert "contiguous" not in one["step, GB by operation"]
