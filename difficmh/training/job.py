"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from difficmh.training.settings import LossSettings
from difficmh.training.stages import STAGES


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, for how long.

    `minutes` is the budget over all resumed runs; learning rates follow the share that is spent. `start` is a
    checkpoint or a capsule's directory; without it a stage starts from the one before it in `output`. `tags` is a JSON
    file of tag names by image key, or a capsule whose tagger finds them (see `tag_source`); `config` a file like a
    capsule's `config.json`, for networks of other sizes; it counts only where a first stage starts afresh.
    `learning_rate` is the peak, None the stage's own.
    """

    data: tuple[Path, ...]
    output: Path
    stage: str
    minutes: float
    device: str = "cpu"
    start: Path | None = None
    tags: Path | None = None
    batch: int = 6
    learning_rate: float | None = None
    seed: int = 0
    config: Path | None = None
    compile: bool = False
    settings: LossSettings = field(default_factory=LossSettings)

    @property
    def peak_rate(self) -> float:
        """The learning rate that warming up ends with."""
        return STAGES[self.stage].PEAK_RATE if self.learning_rate is None else self.learning_rate

    @property
    def checkpoint(self) -> Path:
        return self.output / f"{self.stage}.pt"
