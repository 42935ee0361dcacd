"""Where a training run starts: afresh, from a checkpoint or from the weights of a capsule; and with which pictures."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from difficmh.cdf_tables import TOTAL
from difficmh.errors import CapsuleError
from difficmh.training.image_tags import TagSource
from difficmh.training.job import TrainingJob
from difficmh.training.rate import TRAINING_ONLY, RateModel
from difficmh.training.run import TAG_EMBEDDINGS, build_model, load_data, previous_weights, train
from difficmh.zoo import load_tables
from tests.difficmh.tiny_capsule import TAGS, photograph

REACH = 600
"""Integers on each side that are looked at: more than any table holds."""


def job(
    output: Path, start: Path | None = None, stage: str = "rate_distortion", data: Path | None = None
) -> TrainingJob:
    return TrainingJob((data,) if data else (), output, stage, 1.0, start=start)


def folder(place: Path, *sizes: tuple[int, int]) -> Path:
    """Pictures of these sizes, named by their number."""
    place.mkdir()
    for number, size in enumerate(sizes):
        Image.fromarray(photograph(*size, seed=number)).save(place / f"{number}.png")
    return place


def test_a_first_stage_may_start_afresh_and_a_later_one_not(tmp_path: Path) -> None:
    assert previous_weights(job(tmp_path)) is None
    with pytest.raises(FileNotFoundError, match="train stage rate_distortion first"):
        previous_weights(job(tmp_path, stage="diffusion"))


def test_weights_that_are_asked_for_and_missing_are_no_fresh_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"typo\.pt"):
        train(job(tmp_path / "run", tmp_path / "typo.pt", data=folder(tmp_path / "data", (200, 200))))


def test_a_stage_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    for name in ("rate_distortion.pt", "diffusion.pt"):
        (tmp_path / name).touch()
    assert previous_weights(job(tmp_path, tmp_path / "other.pt")) == tmp_path / "rate_distortion.pt"
    assert previous_weights(job(tmp_path, stage="one_step")) == tmp_path / "diffusion.pt"


def test_the_decoder_stage_counts_where_it_was_trained_last(tmp_path: Path) -> None:
    for age, name in ((20, "rate_distortion.pt"), (10, "decoder.pt")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert previous_weights(job(tmp_path, stage="diffusion")) == tmp_path / "decoder.pt"
    (tmp_path / "rate_distortion.pt").touch()  # trained again: what `decoder` drew is of another codec
    assert previous_weights(job(tmp_path, stage="diffusion")) == tmp_path / "rate_distortion.pt"


def test_tags_stay_with_their_pictures_beside_tiny_ones(tmp_path: Path) -> None:
    """The first picture is held back and the second is too small for crops: neither may shift the others' tags."""
    data = folder(tmp_path / "data", (200, 200), (8, 8), (40, 60), (80, 40))
    tags = TagSource(
        ("wide", "high"),
        lambda samples: [["high" if np.argmin(sample.pixels.shape[:2]) else "wide"] for sample in samples],
    )
    loaded = load_data(job(tmp_path, data=data), tags, vocabulary=2)
    assert loaded.source.heights.tolist() == [40, 80]
    assert loaded.tags.tolist() == [[1, 0], [0, 1]]


def test_too_few_pictures_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two at least"):
        load_data(job(tmp_path, data=folder(tmp_path / "one", (200, 200))), None, 0)
    with pytest.raises(ValueError, match="has 192 pixels a side"):
        load_data(job(tmp_path, data=folder(tmp_path / "small", (100, 200), (200, 200))), None, 0)


def test_shards_are_named_themselves_not_by_their_folder(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", (200, 200))
    (data / "more.tar").touch()
    with pytest.raises(ValueError, match=r"more\.tar: name the shards themselves"):
        load_data(job(tmp_path, data=data), None, 0)


def test_a_file_that_is_no_picture_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path / "data", (200, 200), (200, 200), (200, 200))
    (data / "broken.jpg").write_bytes(b"no picture")
    load_data(job(tmp_path, data=data), None, 0)
    left_out, counted = capsys.readouterr().out.splitlines()
    assert left_out.startswith("1 picture left out that cannot be read: broken.jpg (")
    assert counted == "2 pictures to train on, 1 held back"


def test_pictures_are_read_as_the_codec_reads_them(tmp_path: Path) -> None:
    """Upright above all."""
    data = folder(tmp_path / "data", (200, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(40, 60)).save(data / "turned.jpg", exif=exif)
    assert load_data(job(tmp_path, data=data), None, 0).source.heights.tolist() == [60]


def test_training_goes_on_from_a_capsule(tiny_capsule: Path) -> None:
    weights = build_model(tiny_capsule).state_dict()
    for name, value in load_file(tiny_capsule / "model.safetensors").items():
        assert torch.equal(weights[name], value.float())


@pytest.mark.parametrize("names", [("bus", "car", "tree"), ("bird", "bus", "cow", "tree"), ("ant", "cow", "owl")])
def test_embeddings_of_nouns_known_before_go_into_another_vocabulary(
    tiny_capsule: Path, names: tuple[str, ...]
) -> None:
    before, after = (build_model(tiny_capsule, vocabulary).state_dict() for vocabulary in ((), names))
    known, found = before.pop(TAG_EMBEDDINGS), after.pop(TAG_EMBEDDINGS)
    assert len(found) == len(names)
    for name, row in zip(names, found, strict=True):
        taken_over = [old for old, value in zip(TAGS, known, strict=True) if torch.equal(row, value)]
        assert taken_over == [name] * (name in TAGS)
    networks = [name for name in before if not name.startswith(TRAINING_ONLY)]  # the densities are fitted by chance
    assert all(torch.equal(after[name], before[name]) for name in networks)


def test_a_folder_that_is_no_capsule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError):
        build_model(tmp_path)


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
