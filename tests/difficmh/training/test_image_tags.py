"""Tags of training pictures, from a file by key and from a capsule's tagger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difficmh.capsule import BUILT_IN
from difficmh.training.data import TrainingSample
from difficmh.training.image_tags import tag_matrix, tag_source
from difficmh.vocabulary import Vocabulary
from tests.difficmh.tiny_capsule import photograph

SAMPLES = [TrainingSample(f"{k:04}", photograph(120, 160, k), {}) for k in range(3)]


def test_a_file_names_tags_by_key(tmp_path: Path) -> None:
    file = tmp_path / "tags.json"
    file.write_text(
        json.dumps({"names": ["car", "person", "tree"], "tags": {"0001": ["tree", "car"], "9999": ["car"]}})
    )
    assert tag_matrix(SAMPLES, tag_source(file), 3).tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_no_source_gives_no_tags() -> None:
    assert tag_matrix(SAMPLES, None, 4).tolist() == [[0] * 4] * 3


def test_a_capsule_tags_the_pictures_itself() -> None:
    data = pytest.importorskip("skimage.data")
    source = tag_source(BUILT_IN / "lite")
    assert list(source.names) == list(Vocabulary.load(BUILT_IN / "lite" / "tags.json").names)
    samples = [*SAMPLES, TrainingSample("cat", data.chelsea(), {})]
    found = [set(source.find(sample)) for sample in samples]
    matrix = tag_matrix(samples, source, len(source.names))
    assert [{source.names[i] for i in row.nonzero().flatten()} for row in matrix] == found
    assert "cat" in found[-1]
