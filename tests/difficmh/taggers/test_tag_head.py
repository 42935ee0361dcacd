"""The head that turns features into tags."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from difficmh.errors import CapsuleError
from difficmh.taggers.lite0 import FEATURES
from difficmh.taggers.tag_head import MAX_TAGS, TagHead, choose_tags, load_head
from difficmh.vocabulary import Tag, Vocabulary

VOCABULARY = Vocabulary((Tag("cat", 9, 0.5, (281, 282)), Tag("road", 9, 0.5), Tag("tabby", 9, 0.5, (281,))))


def test_class_tags_follow_the_sum_of_their_classes() -> None:
    head = TagHead(VOCABULARY, count=0)
    head.class_scale.fill_(1)
    logits = torch.full((1, 1000), -30.0)
    logits[0, 281] = logits[0, 282] = 0.0
    cat, _, tabby = head(torch.zeros(1, FEATURES), logits)[0].sigmoid().tolist()
    assert cat == pytest.approx(1 - 1e-4, abs=1e-5)
    assert tabby == pytest.approx(0.5, abs=1e-5)


def test_trained_tags_follow_the_standardised_features() -> None:
    head = TagHead(VOCABULARY, count=1)
    head.trained[0], head.weight[0, 3], head.bias[1] = 1, 2.0, -1.0
    head.mean[3], head.deviation[3] = 5.0, 0.5
    features = torch.zeros(2, FEATURES)
    features[:, 3] = torch.tensor([6.0, 1e6])
    road = head(features, torch.zeros(2, 1000))[:, 1]
    assert road.tolist() == pytest.approx([2 * 2 - 1, 2 * 6 - 1]), "an absurd feature is clipped"


def test_at_most_twelve_tags_and_never_one_with_threshold_one() -> None:
    scores = torch.linspace(0.5, 1, 40)[None]
    thresholds = torch.full((40,), 0.4)
    thresholds[39] = 1.0
    chosen = choose_tags(scores, thresholds)[0].nonzero().flatten().tolist()
    assert chosen == list(range(39 - MAX_TAGS, 39))


def test_small_vocabularies_and_scores_below_the_threshold() -> None:
    chosen = choose_tags(torch.tensor([[0.5, 0.49, 1.0]]), torch.tensor([0.5, 0.5, 1.0]))
    assert chosen.tolist() == [[True, False, False]]


def test_head_in_half_precision_loads(tmp_path: Path) -> None:
    head = TagHead(VOCABULARY, count=2)
    head.weight[1, 5] = 0.25
    save_file(head.compact(), tmp_path / "tagger.safetensors")
    assert load_head(tmp_path / "tagger.safetensors", VOCABULARY).weight[1, 5] == 0.25


def test_head_of_another_vocabulary_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "tagger.safetensors"
    with pytest.raises(CapsuleError, match="tagger"):
        load_head(path, VOCABULARY)
    save_file(TagHead(VOCABULARY, count=1).state_dict(), path)
    with pytest.raises(CapsuleError, match="tagger"):
        load_head(path, Vocabulary(VOCABULARY.tags[:2]))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CapsuleError, match="tagger"):
        load_head(path, VOCABULARY)
