"""The pipeline benchmark's parts: what it packs, how it reads speed off reports, what counts as a worker."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import pipeline as benchmark

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


@pytest.mark.parametrize(
    ("number", "command", "expected"),
    [
        (7, ["python", "jobs/compress_dataset.py"], "driver_mib"),
        (8, ["ray::ShardActor.process"], "worker_mib"),
        (9, ["ray::IDLE"], None),
        (10, ["raylet", "--store_socket_name=x"], None),
    ],
)
def test_only_actors_at_work_count_as_workers(number: int, command: list[str], expected: str | None) -> None:
    assert benchmark.role(SimpleNamespace(pid=number, cmdline=lambda: command), driver=7) == expected
