"""The CSV file and the TensorBoard events of a stage."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from difficmh.training.log import TrainingLog


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    TrainingLog(tmp_path, "diffusion").write(50, 1.5, {"loss": 0.25})
    TrainingLog(tmp_path, "diffusion").write(100, 3.0, {"loss": 0.125, "semantic": 0.5})
    with (tmp_path / "diffusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"step": "50", "minutes": "1.50", "name": "loss", "value": "0.25"}
    assert [(row["step"], row["name"], float(row["value"])) for row in rows[1:]] == [
        ("100", "loss", 0.125),
        ("100", "semantic", 0.5),
    ]


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    TrainingLog(tmp_path, "one_step").write(50, 1.5, {"features": 0.75})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "one_step"))
    events.Reload()
    (event,) = events.Scalars("features")
    assert (event.step, event.value) == (50, 0.75)
