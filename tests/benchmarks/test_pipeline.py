"""The pipeline benchmark's parts: what it packs, how it reads speed off reports, what counts as a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import pipeline as benchmark
from benchmarks.memory import PeakMemory

SETTING = benchmark.Setting(codec="lite", quality=3, shards=3, images=2)


def test_shards_hold_the_same_pictures_under_different_keys(tmp_path: Path) -> None:
    file = benchmark.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    benchmark.write_shards([file, file], 3, tmp_path / "shards")
    names = []
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert len(names) == len(set(names)) == 6


def test_speed_counts_all_shards_but_the_first(tmp_path: Path) -> None:
    for number, second in enumerate((1000, 1004, 1010)):
        path = tmp_path / f"{number}.json"
        path.touch()
        os.utime(path, (second, second))
    assert benchmark.job_speed(tmp_path, SETTING) == pytest.approx(2 * 2 / 10)


def test_summary_compares_with_the_mean_of_both_loops() -> None:
    report = benchmark.summary(SETTING, 9.0, [8.0, 12.0], {"driver_mib": 210.4, "worker_mib": 900.0})
    assert report["results"]["pipeline / bare loop"] == {"measured": 0.9, "target": 0.9}
    assert report["results"]["driver_mib"] == {"measured": 210, "target": 400}


def test_peak_memory_sees_what_a_child_held(tmp_path: Path) -> None:
    program = (
        "import time; held = bytearray(200 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(1); del held"
    )
    child = subprocess.Popen([sys.executable, "-c", program])

    def name(process: psutil.Process) -> str | None:
        return "child" if process.pid == child.pid else None

    with PeakMemory(os.getpid(), name, period=0.02) as memory:
        assert child.wait() == 0
    assert 200 < memory.peaks["child"] < 400
