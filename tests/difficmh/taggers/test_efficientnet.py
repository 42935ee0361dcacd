"""The tagger of the built-in capsule on real photographs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difficmh.capsule import BUILT_IN
from difficmh.errors import CapsuleError
from difficmh.taggers.efficientnet import EfficientNetTagger
from difficmh.taggers.lite0 import input_pixels, input_size, reduced_like_bytes
from difficmh.taggers.tag_head import MAX_TAGS

LITE = BUILT_IN / "lite"


@pytest.fixture(scope="module")
def tagger() -> EfficientNetTagger:
    return EfficientNetTagger(LITE)


def test_photographs_get_the_tags_one_expects(tagger: EfficientNetTagger) -> None:
    data = pytest.importorskip("skimage.data")
    cat, coffee = ({tag.name for tag in tags} for tags in tagger([data.chelsea(), data.coffee()]))
    assert "cat" in cat
    assert coffee & {"cup", "espresso", "coffee mug"}


def test_tags_are_sorted_scored_and_bounded(tagger: EfficientNetTagger) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8) for seed in range(2)]
    for tags in tagger([*images, np.zeros((1, 1, 3), np.uint8)]):
        names = [tag.name for tag in tags]
        assert names == sorted(set(names))
        assert len(names) <= MAX_TAGS
        assert set(names) <= set(tagger.vocabulary.names)
        assert all(0 < tag.score <= 1 for tag in tags)


def test_neighbours_in_a_batch_change_nothing(tagger: EfficientNetTagger) -> None:
    data = pytest.importorskip("skimage.data")
    cat, rocket = data.chelsea(), data.rocket()
    alone = tagger([cat])[0]
    assert tagger([rocket, cat, rocket[:300], cat.copy()])[1::2] == [alone, alone]
    assert tagger([]) == []


def test_the_vocabulary_has_the_nouns_of_both_sources(tagger: EfficientNetTagger) -> None:
    names = set(tagger.vocabulary.names)
    assert {"tench", "toilet tissue", "golden retriever"} <= names, "ImageNet"
    assert {"license plate", "lane marking", "raccoon", "pothole"} <= names, "our own"
    assert len(names) > 1100


def test_a_capsule_without_tagger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match=r"tags\.json"):
        EfficientNetTagger(tmp_path)
    (tmp_path / "tags.json").write_bytes((LITE / "tags.json").read_bytes())
    with pytest.raises(CapsuleError, match=r"tagger\.safetensors"):
        EfficientNetTagger(tmp_path)


def test_a_sealed_capsule_vouches_for_its_tagger(tmp_path: Path) -> None:
    for name in ("manifest.json", "tags.json", "tagger.safetensors"):
        (tmp_path / name).write_bytes((LITE / name).read_bytes())
    EfficientNetTagger(tmp_path)
    altered = bytearray((LITE / "tagger.safetensors").read_bytes())
    altered[-1] ^= 1
    (tmp_path / "tagger.safetensors").write_bytes(altered)
    with pytest.raises(CapsuleError, match="is not the file that the manifest describes"):
        EfficientNetTagger(tmp_path)
    (tmp_path / "manifest.json").unlink()
    EfficientNetTagger(tmp_path)  # as `jobs/train_tagger.py` leaves it, before there is a codec to seal


@pytest.mark.parametrize("name", ["chelsea", "rocket"])
def test_pixels_of_a_gpu_are_those_of_a_cpu(name: str) -> None:
    """All but a few in a thousand, which the bytes' fixed point rounds the other way."""
    image = getattr(pytest.importorskip("skimage.data"), name)()
    expected = input_pixels(image).float()
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    difference = (reduced_like_bytes(pixels, input_size(*image.shape[:2])) - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_nearly_the_same_scores(tagger: EfficientNetTagger) -> None:
    data = pytest.importorskip("skimage.data")
    images = [data.chelsea(), data.chelsea()[:, ::-1]]
    torch.testing.assert_close(
        EfficientNetTagger(LITE, "cuda").scores(images), tagger.scores(images), atol=0.02, rtol=0
    )
