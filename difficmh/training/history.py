"""How weights came to be: the stages that they went through, kept in checkpoints and capsules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from difficmh.capsule import capsule_fingerprint, read_name
from difficmh.training.settings import LossSettings

HISTORY_FILE = "training.json"
"""The history in a capsule; it decodes nothing, so the fingerprint does not depend on it."""


@dataclass(frozen=True)
class StageRecord:
    """One stage's run: `steps` of `batch` crops of `crop` x `crop` pixels in `minutes`, out of `images` pictures.

    `start` names the capsule it began from, KLT for fresh networks, and is empty for the stage before; `rate` is the
    peak learning rate, `changed` the weights of losses that were not the default.
    """

    stage: str
    steps: int
    minutes: float
    batch: int
    crop: int
    rate: float
    images: int
    device: str
    changed: Mapping[str, float]
    start: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"changed": dict(self.changed), "minutes": round(self.minutes, 1)}


def changed_settings(settings: LossSettings) -> dict[str, float]:
    """What differs from the defaults, by name."""
    default = LossSettings()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def device_name(device: torch.device) -> str:
    """A GPU's name, or how many threads a CPU computes with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return "1 thread" if threads == 1 else f"{threads} threads"


def read_history(place: Path) -> list[StageRecord]:
    """The stages behind a checkpoint or a capsule, first one first; empty where nothing was recorded."""
    if place.is_dir():
        file = place / HISTORY_FILE
        records = json.loads(file.read_text()) if file.is_file() else []
    else:
        records = read_checkpoint(place, mmap=True).get("history", [])
    return [StageRecord(**record) for record in records]


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint of training, on the CPU; `mmap` for a part of one. Raises ValueError for a file that is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is no checkpoint of training") from error
    if not isinstance(state, dict) or not {"config", "model", "average"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of this program's training")
    return state


def start_of(place: Path) -> str:
    """Name and fingerprint where `place` is a capsule, nothing where it is a checkpoint."""
    if not place.is_dir():
        return ""
    return f"{read_name(place)} {capsule_fingerprint(place)}"


def write_history(capsule: Path, records: list[StageRecord]) -> None:
    """Writes `training.json`; the manifest has to be written after it."""
    content = [record.to_dict() for record in records]
    (capsule / HISTORY_FILE).write_text(json.dumps(content, indent=1) + "\n")
