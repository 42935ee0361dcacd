"""A training run from files to checkpoint, on one device."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from difficmh.capsule import read_config
from difficmh.config import CodecConfig
from difficmh.model import CodecModel
from difficmh.training.data import CropSource, TrainingSample, read_samples
from difficmh.training.history import read_history, start_of
from difficmh.training.image_tags import tag_matrix, tag_source
from difficmh.training.klt import initialise
from difficmh.training.rate import RateModel
from difficmh.training.settings import LossSettings
from difficmh.training.trainer import Trainer, TrainingOptions, averaged_state
from difficmh.zoo import TRAINING_ONLY, load_tables

PREVIOUS = {"decoder": "rate_distortion", "diffusion": "rate_distortion", "one_step": "diffusion"}
HELD_BACK = 60
"""Every so many images one is kept for the validation table."""


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, for how long.

    `start` is a checkpoint or a capsule's directory; without it a stage starts from the one before it in `output`.
    `tags` is a JSON file of tag names by image key, or a capsule whose tagger finds them (see `tag_source`); `config` a
    file like a capsule's `config.json`, for networks of other sizes; it counts only where a first stage starts afresh.
    """

    data: tuple[Path, ...]
    output: Path
    stage: str
    minutes: float
    device: str = "cpu"
    start: Path | None = None
    tags: Path | None = None
    batch: int = 6
    rate: float = 4e-4
    seed: int = 0
    config: Path | None = None
    compile: bool = False
    settings: LossSettings = field(default_factory=LossSettings)


def train(job: TrainingJob) -> Path:
    """Runs one stage; returns its checkpoint."""
    torch.manual_seed(job.seed)
    samples = read_samples(job.data)
    tags = tag_source(job.tags) if job.tags else None
    kept = [sample for i, sample in enumerate(samples) if i % HELD_BACK]
    source = CropSource([sample.pixels for sample in kept], job.device)
    model, fresh = build_model(job, len(tags.names) if tags else 0)
    if fresh:
        initialise(model, source, job.seed)
    model.to(torch.device(job.device)).to(memory_format=torch.channels_last)
    options = TrainingOptions(
        job.stage,
        job.output,
        job.minutes,
        rate=job.rate,
        batch=job.batch,
        seed=job.seed,
        compile=job.compile,
        settings=job.settings,
    )
    before = [] if fresh else read_history(previous_weights(job))
    matrix = tag_matrix(kept, tags, model.config.denoiser.vocabulary_size)
    trainer = Trainer(model, source, matrix, options, before, "KLT" if fresh else start_of(job.start))
    trainer.run(validation_images(samples[::HELD_BACK], options.crop).to(job.device))
    return trainer.checkpoint


def previous_weights(job: TrainingJob) -> Path:
    """The checkpoint or capsule that a stage starts from, which may not exist."""
    return job.start or job.output / f"{PREVIOUS.get(job.stage, '')}.pt"


def build_model(job: TrainingJob, vocabulary: int = 0) -> tuple[CodecModel, bool]:
    """The model to start from, and whether it is fresh and needs its KLT start.

    `vocabulary` is the number of tags; 0 keeps that of the weights it starts from.
    """
    previous = previous_weights(job)
    if not previous.exists():
        if job.stage in PREVIOUS and not (job.output / f"{job.stage}.pt").exists():
            raise FileNotFoundError(f"{previous} is missing: train stage {PREVIOUS[job.stage]} first")
        content = json.loads(job.config.read_text())["codec"] if job.config else CodecConfig().to_dict()
        return trainable(with_vocabulary(CodecConfig.from_dict(content), vocabulary)), True
    fields, weights = capsule_state(previous) if previous.is_dir() else averaged_state(previous)
    config = with_vocabulary(CodecConfig.from_dict(fields), vocabulary)
    model = trainable(config)
    if config.denoiser.vocabulary_size != fields["denoiser"]["vocabulary_size"]:
        weights = {name: value for name, value in weights.items() if name != "denoiser.condition.tags"}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or any(name != "denoiser.condition.tags" for name in missing):
        raise ValueError(f"{previous} does not fit: missing {missing}, unexpected {unexpected}")
    return model, False


def capsule_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a capsule, to train on from there; raises CapsuleError where it is none."""
    fields = read_config(path)["codec"]
    weights = {name: value.float() for name, value in load_file(path / "model.safetensors").items()}
    rate = RateModel(fields["entropy"]["hyper_channels"])
    excess = rate.fit(load_tables(path).z)
    print(f"densities of z fitted to the tables of {path.name}: {excess:.4f} bits per symbol off")
    return fields, {**weights, **{f"{TRAINING_ONLY}{name}": value for name, value in rate.state_dict().items()}}


def trainable(config: CodecConfig) -> CodecModel:
    """A model with the densities that training needs."""
    model = CodecModel(config)
    model.rate = RateModel(config.entropy.hyper_channels)
    return model


def with_vocabulary(config: CodecConfig, size: int) -> CodecConfig:
    """`config` for a vocabulary of `size` tags; 0 keeps what it has."""
    if not size:
        return config
    return replace(config, denoiser=replace(config.denoiser, vocabulary_size=size))


def validation_images(samples: list[TrainingSample], crop: int, count: int = 16) -> Tensor:
    """Central crops of the first held-back images that are large enough, `(K, 3, crop, crop)` in [0, 1]."""
    crops: list[Tensor] = []
    for sample in samples:
        top, left = ((side - crop) // 2 for side in sample.pixels.shape[:2])
        if min(top, left) >= 0 and len(crops) < count:
            crops.append(torch.from_numpy(sample.pixels[top : top + crop, left : left + crop].copy()))
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 255
