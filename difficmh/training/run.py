"""A training run from files to checkpoint, on one device."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from difficmh.capsule import WEIGHTS, read_config
from difficmh.config import CodecConfig
from difficmh.model import CodecModel
from difficmh.training.data import CROP, SMALLEST_SIDE, CropSource, TrainingData, TrainingSample, read_samples
from difficmh.training.history import read_history, start_of
from difficmh.training.image_tags import TagSource, carried_over, learned_vocabulary, tag_matrix, tag_source
from difficmh.training.job import TrainingJob
from difficmh.training.klt import initialize
from difficmh.training.rate import TRAINING_ONLY, RateModel
from difficmh.training.stages import STAGES
from difficmh.training.trainer import Trainer, averaged_state
from difficmh.zoo import find_device, load_tables

TAG_EMBEDDINGS = "denoiser.condition.tags"

HELD_BACK = 60
"""Every so many images one is kept for the validation table."""

VALIDATION_IMAGES = 16
"""Images of that table, at most."""


def train(job: TrainingJob) -> Path:
    """Runs one stage; returns its checkpoint.

    Raises FileNotFoundError for missing weights or pictures, ImageError where no picture can be read, ValueError for
    too few of them, a damaged shard, or a device that there is not.
    """
    check_places(job)
    device = find_device(job.device)
    torch.manual_seed(job.seed)
    tags = tag_source(job.tags, job.device) if job.tags else None
    previous = previous_weights(job)
    known = learned_vocabulary(previous) if previous else ()
    model = build_model(previous, tags.names if tags else (), job.config)
    data = load_data(job, tags, model.config.denoiser.vocabulary_size)
    if previous is None:
        initialize(model, data.source, job.seed)
    model.to(device).to(memory_format=torch.channels_last)
    before = read_history(previous) if previous else []
    start = start_of(previous) if previous else "KLT"
    Trainer(model, data, job, tuple(tags.names) if tags else known, before, start).run()
    return job.checkpoint


def check_places(job: TrainingJob) -> None:
    """Raises FileNotFoundError where pictures or weights to start from are missing; takes no time."""
    for path in job.data:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    previous_weights(job)


def load_data(job: TrainingJob, tags: TagSource | None, vocabulary: int) -> TrainingData:
    """Reads the pictures, once; they are held once, on the device."""
    samples = [sample for sample in read_samples(job.data) if min(sample.pixels.shape[:2]) >= SMALLEST_SIDE]
    kept = [sample for i, sample in enumerate(samples) if i % HELD_BACK]
    if not kept:
        raise ValueError(f"{len(samples)} pictures of {SMALLEST_SIDE} pixels a side are too few: two at least")
    print(f"{len(kept)} pictures to train on, {len(samples) - len(kept)} held back", flush=True)
    matrix = tag_matrix(kept, tags, vocabulary)
    if tags:
        print(f"{int(matrix.any(dim=1).sum())} of {len(kept)} pictures have tags", flush=True)
    return TrainingData(
        CropSource([sample.pixels for sample in kept], job.device),
        matrix,
        validation_images(samples[::HELD_BACK]).to(job.device),
    )


def previous_weights(job: TrainingJob) -> Path | None:
    """The checkpoint or capsule whose weights a run takes up; None where a first stage starts afresh.

    Raises FileNotFoundError where it is missing.
    """
    if job.checkpoint.exists():
        return job.checkpoint
    if job.start is not None:
        if not job.start.exists():
            raise FileNotFoundError(f"{job.start}, to start from, is missing")
        return job.start
    names = STAGES[job.stage].PREVIOUS
    if not names:
        return None
    before = [path for name in names if (path := job.output / f"{name}.pt").exists()]
    if not before:
        raise FileNotFoundError(f"{job.output / f'{names[-1]}.pt'} is missing: train stage {names[-1]} first")
    return max(before, key=lambda path: path.stat().st_mtime_ns)


def build_model(previous: Path | None, vocabulary: Sequence[str] = (), sizes: Path | None = None) -> CodecModel:
    """The model with the weights of a checkpoint or capsule; fresh ones, of the sizes in a file, where there is none.

    `vocabulary` are the names of all tags; without them, it is that of the weights. Raises ValueError where weights do
    not fit.
    """
    if previous is None:
        config = read_sizes(sizes) if sizes else CodecConfig()
        return trainable(with_vocabulary(config, len(vocabulary)))
    fields, weights = capsule_state(previous) if previous.is_dir() else averaged_state(previous)
    model = trainable(with_vocabulary(CodecConfig.from_dict(fields), len(vocabulary)))
    if vocabulary:
        fresh = model.state_dict()[TAG_EMBEDDINGS]
        embeddings = carried_over(weights[TAG_EMBEDDINGS], learned_vocabulary(previous), fresh, vocabulary)
        weights = {**weights, TAG_EMBEDDINGS: embeddings}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{previous} does not fit: {error}") from error
    return model


def read_sizes(path: Path) -> CodecConfig:
    """Raises ValueError for a file that describes no networks."""
    try:
        return CodecConfig.from_dict(json.loads(path.read_text())["codec"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} describes no networks: {error!r}") from error


def capsule_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a capsule, to train on from there; raises CapsuleError where it is none."""
    fields = read_config(path)["codec"]
    weights = {name: value.float() for name, value in load_file(path / WEIGHTS).items()}
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


def validation_images(samples: Sequence[TrainingSample]) -> Tensor:
    """Central crops of the first held-back images that are large enough, `(K, 3, CROP, CROP)` float32 in [0, 1].

    Raises ValueError where none is.
    """
    large = [sample.pixels for sample in samples if min(sample.pixels.shape[:2]) >= CROP][:VALIDATION_IMAGES]
    if not large:
        raise ValueError(f"none of the {len(samples)} pictures held back (one in {HELD_BACK}) has {CROP} pixels a side")
    return torch.stack([central_crop(pixels, CROP) for pixels in large]).permute(0, 3, 1, 2).float() / 255


def central_crop(pixels: NDArray[np.uint8], crop: int) -> Tensor:
    """`(crop, crop, 3)` uint8 of the middle of `(H, W, 3)`."""
    top, left = ((side - crop) // 2 for side in pixels.shape[:2])
    return torch.from_numpy(pixels[top : top + crop, left : left + crop].copy())
