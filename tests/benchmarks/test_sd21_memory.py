"""Memory of the paper's model, counted without a GPU: on small networks what it reports, at full size the target."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import sd21_memory as benchmark
from benchmarks.sd21_networks import SIZES


def test_weights_and_parts_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--networks", "small", "--size", "64", "--batch-sizes", "1", "2", "--dtype", "float16"])
    report = json.loads(capsys.readouterr().out)
    assert [(each["batch"], each["part"]) for each in report["parts"]] == [
        (1, "step"),
        (1, "draw"),
        (2, "step"),
        (2, "draw"),
    ]
    assert report["setting"]["dtype"] == "float16"


def test_impossible_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--size", "100"], ["--batch-sizes", "0"]):
        with pytest.raises(SystemExit):
            benchmark.main(arguments)
    assert "multiple of 8" in capsys.readouterr().err


def test_decoding_at_full_size_fits_the_target_by_count() -> None:
    weights, needs = benchmark.count(SIZES["full"], 512, (1, 8), torch.bfloat16)
    parameters = 866 + 374  # millions, UNet and control module
    assert weights.denoiser == pytest.approx(2 * parameters / 1000, rel=0.01)
    total = weights.denoiser + weights.autoencoder + weights.text + weights.lfgcm
    assert all(total < need.peak_gb < benchmark.TARGETS["decode, GB"] for need in needs)
    steps = {need.batch: need.peak_gb - total for need in needs if need.part == "step"}
    assert steps[8] == pytest.approx(8 * steps[1], rel=0.1)
