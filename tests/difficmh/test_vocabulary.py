"""The vocabulary file: what it refuses, and that it survives a round trip."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from difficmh.capsule import VOCABULARY, capsule_fingerprint, write_manifest
from difficmh.errors import CapsuleError
from difficmh.vocabulary import PRIOR_ONE, Tag, Vocabulary, known_prior, merge_nouns, prior_from_count

CAR, TREE = Tag("car", 3000, 0.5, (407, 436)), Tag("tree", 1, 1.0)


def test_round_trip(tmp_path: Path) -> None:
    vocabulary = Vocabulary((CAR, TREE))
    vocabulary.save(tmp_path / "tags.json")
    assert Vocabulary.load(tmp_path / "tags.json") == vocabulary
    assert vocabulary.names == ("car", "tree")
    assert vocabulary.priors == (3000, 1)


@pytest.mark.parametrize(
    "tags", [(TREE, CAR), (CAR, CAR), (Tag("x", 0, 0.5),), (Tag("x", PRIOR_ONE, 0.5),), (Tag("x", 1, 0.0),)]
)
def test_unsorted_repeated_or_impossible_tags_are_refused(tags: tuple[Tag, ...]) -> None:
    with pytest.raises(CapsuleError):
        Vocabulary(tags)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 1}', '{"format": 2, "tags": []}', '{"format": 1, "tags": [{"name": "x"}]}'),
        *(
            f'{{"format": 1, "tags": [{{"name": "x", "prior": {prior}, "threshold": 0.5, "classes": []}}]}}'
            for prior in ('"abc"', "Infinity")
        ),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path: Path, text: str) -> None:
    (tmp_path / "tags.json").write_text(text)
    with pytest.raises(CapsuleError, match=r"tags\.json"):
        Vocabulary.load(tmp_path / "tags.json")


def test_a_model_that_is_fetched_later_is_known_then(
    tmp_path: Path, tiny_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one whose vocabulary is not that it was sealed with is as good as none, until it is mended."""
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    capsule = tmp_path / "mine"
    fingerprint = capsule_fingerprint(tiny_capsule)[:8]
    assert known_prior(fingerprint) is None
    shutil.copytree(tiny_capsule, capsule)
    sealed = (capsule / VOCABULARY).read_text()
    (capsule / VOCABULARY).write_text(sealed.replace('"name": "', '"name": "another '))
    assert known_prior(fingerprint) is None
    (capsule / VOCABULARY).write_text(sealed)
    prior = known_prior(fingerprint)
    assert prior is not None
    assert known_prior(fingerprint) is prior


def test_a_model_in_the_place_of_another_has_its_own_tags(
    tmp_path: Path, tiny_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path))
    capsule = tmp_path / "mine"
    shutil.copytree(tiny_capsule, capsule)
    before = known_prior(capsule_fingerprint(capsule)[:8])
    Vocabulary((CAR, TREE)).save(capsule / VOCABULARY)
    after = known_prior(write_manifest(capsule)[:8])
    assert before is not None
    assert after is not None
    assert before.names != after.names == ("car", "tree")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match=r"tags\.json"):
        Vocabulary.load(tmp_path / "tags.json")


@pytest.mark.parametrize(("count", "images"), [(0, 10), (10, 10), (0, 10**7), (10**7, 10**7), (0, 0)])
def test_priors_stay_inside_what_a_coder_can_use(count: int, images: int) -> None:
    assert 1 <= prior_from_count(count, images) < PRIOR_ONE


def test_prior_follows_frequency() -> None:
    assert prior_from_count(499, 998) == PRIOR_ONE // 2


def test_nouns_are_merged_in_plain_lower_case() -> None:
    assert merge_nouns(["Golden  Retriever", "car"], ["car ", "abacus"]) == ["abacus", "car", "golden retriever"]
