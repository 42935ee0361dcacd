"""Tags of training pictures, from a file by key and from a capsule's tagger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from difficmh.capsule import BUILT_IN
from difficmh.training import image_tags
from difficmh.training.data import TrainingSample
from difficmh.training.image_tags import tag_matrix, tag_source
from difficmh.vocabulary import TagScore, Vocabulary
from tests.difficmh.tiny_capsule import photograph

SAMPLES = [TrainingSample(f"{k:04}", photograph(120, 160, k), {}) for k in range(3)]


def test_a_file_names_tags_by_key(tmp_path: Path) -> None:
    file = tmp_path / "tags.json"
    file.write_text(
        json.dumps({"names": ["car", "person", "tree"], "tags": {"0001": ["tree", "car"], "9999": ["car"]}})
    )
    assert tag_matrix(SAMPLES, tag_source(file), 3).tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("tags", "words"),
    [({"0001": ["car", "lorry"]}, "none of its names, such as .lorry."), ({"0001": 5}, "no tags by image key")],
)
def test_a_file_is_checked_when_it_is_read(tmp_path: Path, tags: dict[str, object], words: str) -> None:
    (tmp_path / "tags.json").write_text(json.dumps({"names": ["car", "tree"], "tags": tags}))
    with pytest.raises(ValueError, match=words):
        tag_source(tmp_path / "tags.json")


def test_all_pictures_go_to_the_tagger_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which looks at them in batches on a GPU."""
    asked = []

    def tagger(images: Sequence[NDArray[np.uint8]]) -> list[list[TagScore]]:
        asked.append(len(images))
        return [[TagScore("cat", 1.0)] for _ in images]

    monkeypatch.setattr(image_tags, "load_tagger", lambda place, device: tagger)
    assert tag_source(BUILT_IN / "lite").find(SAMPLES) == [["cat"]] * 3
    assert asked == [3]


def test_no_source_gives_no_tags() -> None:
    assert tag_matrix(SAMPLES, None, 4).tolist() == [[0] * 4] * 3


def test_a_capsule_tags_the_pictures_itself() -> None:
    data = pytest.importorskip("skimage.data")
    source = tag_source(BUILT_IN / "lite")
    assert list(source.names) == list(Vocabulary.load(BUILT_IN / "lite" / "tags.json").names)
    samples = [*SAMPLES, TrainingSample("cat", data.chelsea(), {})]
    found = [set(tags) for tags in source.find(samples)]
    matrix = tag_matrix(samples, source, len(source.names))
    assert [{source.names[i] for i in row.nonzero().flatten()} for row in matrix] == found
    assert "cat" in found[-1]
