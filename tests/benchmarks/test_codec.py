"""The codec benchmark's report: ratios against the yardsticks it names, whatever the codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import codec as benchmark
from benchmarks.timing import Timings
from tests.fakes import FakeCodec

SETTING = benchmark.Setting(codec="fake", quality=3, images=3, batch_size=2, rounds=1)


def test_actions_cover_every_image_in_batches(tmp_path: Path) -> None:
    codec = FakeCodec(capsule=tmp_path)
    images = [np.zeros((16, 24, 3), np.uint8)] * SETTING.images
    actions = benchmark.codec_actions(codec, images, SETTING)
    codec.calls.clear()
    actions["encode"]()
    assert codec.calls == [2, 1]


def test_yardsticks_run_on_as_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "HEIGHT", 64)
    monkeypatch.setattr(benchmark, "WIDTH", 64)
    with torch.inference_mode():
        outputs = {name: action() for name, action in benchmark.yardsticks(SETTING).items()}
    assert [len(batch) for batch in outputs["bmshj2018.g_s"]] == [2, 1]
    assert outputs["cheng2020.g_s"][0].shape == (2, 3, 64, 64)


def test_summary_names_ratio_target_and_machine() -> None:
    names = ("encode", "preview", "full", "bmshj2018.g_a", "bmshj2018.g_s", "cheng2020.g_s")
    timings = Timings({name: [2.0 if "." in name else 3.0] for name in names})
    report = benchmark.summary(SETTING, timings)
    assert report["ratios"]["preview / bmshj2018_hyperprior(4).g_s"] == {"measured": 1.5, "target": 2.0}
    assert report["images_per_second"]["full"] == 1.0
    assert report["ms_per_megapixel"]["full"] == pytest.approx(1000 * 3 / 3 / (768 * 512 / 1e6), abs=0.1)
    assert set(report["machine"]) >= {"cpu", "cores", "threads", "torch", "date"}
