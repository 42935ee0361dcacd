"""Training of the head on made-up features whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difficmh.taggers.lite0 import FEATURES
from difficmh.training.tagger import TaggerTraining, TrainedTagger, given_tags, head_scores, split, train_tagger
from difficmh.training.tagger_features import TaggerFeatures
from difficmh.training.tagger_report import measure_tagger

COUNT = 400


@pytest.fixture(scope="module")
def data() -> TaggerFeatures:
    """Feature 7 shows pixies, feature 9 a road; every tenth picture is a tabby that the classifier sees."""
    generator = torch.Generator().manual_seed(0)
    features = torch.zeros(COUNT, 2, FEATURES)
    features[:, :, :20] = torch.randn(COUNT, 1, 20, generator=generator)
    class_logits = torch.randn(COUNT, 1, 1000, generator=generator).expand(-1, 2, -1).clone()
    metadata = []
    for row in range(COUNT):
        features[row, :, 7] += 6 * (row % 2)
        features[row, :, 9] += 6 * (row % 3 == 0)
        class_logits[row, :, 281] += 20 * (row % 10 == 0)
        labels = ["pixie"] * (row % 2) + ["road"] * (row % 3 == 0)
        detected = [{"label": "goblin", "score": 0.6}] if row == 0 else []
        metadata.append({"source": "wood", "label_kind": "boxes", "labels": labels, "detected": detected})
    keys = tuple(f"{row:06d}" for row in range(COUNT))
    return TaggerFeatures(features.half(), class_logits.half(), keys, tuple(metadata))


@pytest.fixture(scope="module")
def tagger(data: TaggerFeatures) -> TrainedTagger:
    return train_tagger(data, TaggerTraining(epochs=10, batch=32, learning_rate=0.2))


def test_the_head_learns_what_it_is_shown(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    assert tagger.nouns == ("pixie", "road")
    measures = measure_tagger(tagger, data, split(data.keys).held_back, data)
    assert measures.f1_commonest > 0.95
    assert measures.images == int(split(data.keys).held_back.sum())


def test_tags_of_images(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    tags = given_tags(tagger, data)
    assert {"pixie", "road"} <= set(tags["000003"])
    assert "pixie" not in tags["000004"]
    assert {"cat", "tabby"} <= set(tags["000010"]), "ImageNet's nouns follow the classifier"


def test_keys_that_stand_for_several_images_are_refused(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    twice = replace(data, keys=("000001", *data.keys[1:]))
    with pytest.raises(ValueError, match="000001"):
        given_tags(tagger, twice)


def test_pictures_without_labels_make_a_tagger_of_imagenets_nouns(data: TaggerFeatures) -> None:
    bare = train_tagger(replace(data, metadata=({},) * COUNT), TaggerTraining(epochs=1))
    assert bare.nouns == ()
    assert {"cat", "tabby"} <= set(given_tags(bare, data)["000010"])


def test_priors_are_how_often_the_tagger_gives_a_tag(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    given = sum("pixie" in tags for tags in given_tags(tagger, data).values())
    priors = dict(zip(tagger.vocabulary.names, tagger.vocabulary.priors, strict=True))
    assert priors["pixie"] == round(65536 * (given + 1) / (COUNT + 2))
    assert priors["abacus"] < priors["pixie"] / 50


def test_nouns_nobody_knows_are_in_the_vocabulary_but_never_given(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    goblin = tagger.vocabulary.tags[tagger.vocabulary.names.index("goblin")]
    assert goblin.threshold == 1
    assert not any("goblin" in tags for tags in given_tags(tagger, data).values())


def test_training_is_repeatable(data: TaggerFeatures, tagger: TrainedTagger) -> None:
    again = train_tagger(data, TaggerTraining(epochs=10, batch=32, learning_rate=0.2))
    assert torch.allclose(head_scores(again.head, data), head_scores(tagger.head, data), atol=1e-3)


def test_splits_are_disjoint_and_depend_on_the_key_alone(data: TaggerFeatures) -> None:
    splits = split(data.keys)
    parts = torch.stack((splits.train, splits.thresholds, splits.held_back))
    assert (parts.sum(dim=0) == 1).all()
    assert 0.7 < float(splits.train.float().mean()) < 0.9
    assert split(data.keys[5:6]).train[0] == splits.train[5]


def test_features_survive_a_file(data: TaggerFeatures, tmp_path: Path) -> None:
    data.save(tmp_path / "deep" / "features.npz")
    loaded = TaggerFeatures.load(tmp_path / "deep" / "features.npz")
    assert (loaded.keys, loaded.metadata) == (data.keys, data.metadata)
    assert torch.equal(loaded.class_logits, data.class_logits)
