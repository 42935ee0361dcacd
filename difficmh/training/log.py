"""What a stage of training reports: a CSV file in long form, and TensorBoard events where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

HEADER = ("step", "minutes", "name", "value")


class TrainingLog:
    """Appends to `FOLDER/STAGE.csv`, a row per value, and to `FOLDER/tensorboard/STAGE`.

    Long form: a stage may begin to report a value halfway, and a resumed run goes on in the same file. Nothing is made
    before the first report: of several workers only one writes.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        self.stage = stage

    @property
    def path(self) -> Path:
        return self.folder / f"{self.stage}.csv"

    @cached_property
    def _events(self) -> Any:
        return _event_writer(self.folder / "tensorboard" / self.stage)

    def write(self, step: int, minutes: float, values: Mapping[str, float]) -> None:
        """One report, at a step and after so many minutes of training; the folder must exist."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(HEADER)
            writer.writerows((step, f"{minutes:.2f}", name, f"{value:.6g}") for name, value in values.items())
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()


def _event_writer(folder: Path) -> Any:
    """TensorBoard's writer, or None where it is not installed: the CSV file has everything."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
