"""Where a training run starts: afresh, from a checkpoint, or from the weights of a capsule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difficmh.cdf_tables import TOTAL
from difficmh.errors import CapsuleError
from difficmh.training.rate import RateModel
from difficmh.training.run import TrainingJob, build_model
from difficmh.zoo import load_tables

REACH = 600
"""Integers on each side that are looked at: more than any table holds."""


def job(output: Path, start: Path, **others: object) -> TrainingJob:
    return TrainingJob((), output, "rate_distortion", 1.0, start=start, **others)  # type: ignore[arg-type]


def test_training_goes_on_from_a_capsule(tiny_capsule: Path, tmp_path: Path) -> None:
    model, fresh = build_model(job(tmp_path, tiny_capsule))
    assert not fresh
    weights = model.state_dict()
    for name, value in load_file(tiny_capsule / "model.safetensors").items():
        assert torch.equal(weights[name], value.float())


def test_another_vocabulary_drops_only_the_embeddings_of_tags(tiny_capsule: Path, tmp_path: Path) -> None:
    model, _ = build_model(job(tmp_path, tiny_capsule), vocabulary=5)
    assert model.denoiser.condition.tags.shape[0] == 5


def test_a_folder_that_is_no_capsule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError):
        build_model(job(tmp_path, tmp_path))


def test_densities_are_fitted_to_the_tables(tiny_capsule: Path) -> None:
    """As far as counts of 65536 tell them."""
    tables = load_tables(tiny_capsule).z
    rate = RateModel(len(tables))
    before = rate.z_probabilities(REACH)
    assert rate.fit(tables) < 0.01
    after = rate.z_probabilities(REACH)
    for row, counts in enumerate(tables.counts):
        first, size = int(tables.offsets[row]) + REACH, int(tables.sizes[row])
        wanted = torch.from_numpy(counts[:size]) / TOTAL
        errors = [float((found[row, first : first + size] - wanted).abs().max()) for found in (before, after)]
        assert errors[1] < 0.01
        assert errors[1] <= errors[0] + 0.005
