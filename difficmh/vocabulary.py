"""The tags an image can carry, and how likely each is: the file `tags.json` of a capsule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from difficmh.capsule import VOCABULARY, capsule_of, verify
from difficmh.errors import CapsuleError
from difficmh.tag_coder import TagPrior

PRIOR_ONE = 65536
FORMAT = 1


@dataclass(frozen=True)
class Tag:
    """One entry of a vocabulary.

    `prior` is the tag's probability in 65536ths, in 1..65535, an integer so that every machine codes with the same one.
    A tagger gives the tag at a score of `threshold` or more; the threshold 1 stands for a tag that it never gives and
    only a caller can. `classes` are the ImageNet classes (WordNet-id order) that show the noun; only taggers use them.
    """

    name: str
    prior: int
    threshold: float
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class TagScore:
    """A tag of an image and the tagger's confidence in it, in [0, 1]."""

    name: str
    score: float


@dataclass(frozen=True)
class Vocabulary:
    """Tags in order of their names, without duplicates. Raises CapsuleError where they are not."""

    tags: tuple[Tag, ...]

    def __post_init__(self) -> None:
        names = [tag.name for tag in self.tags]
        if names != sorted(set(names)):
            raise CapsuleError("the names of a tag vocabulary have to be sorted and different")
        for tag in self.tags:
            if not 0 < tag.prior < PRIOR_ONE or not 0 < tag.threshold <= 1:
                raise CapsuleError(f"tag {tag.name!r} has prior {tag.prior} and threshold {tag.threshold}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each tag, sorted."""
        return tuple(tag.name for tag in self.tags)

    @cached_property
    def priors(self) -> tuple[int, ...]:
        """Probability of each tag in 65536ths."""
        return tuple(tag.prior for tag in self.tags)

    def save(self, path: Path) -> None:
        """One tag a line, so that a difference between two vocabularies can be read."""
        lines = ",\n".join(json.dumps(asdict(tag), ensure_ascii=False) for tag in self.tags)
        path.write_text(f'{{"format": {FORMAT}, "tags": [\n{lines}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read `tags.json`. Raises CapsuleError where it is missing or no vocabulary."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise CapsuleError(f"{path.name} has format {content['format']}, this version reads {FORMAT}")
            return cls(tuple(_tag(entry) for entry in content["tags"]))
        except CapsuleError:
            raise
        except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CapsuleError(f"{path.name} is no tag vocabulary: {error}") from error


def _tag(entry: dict[str, Any]) -> Tag:
    return Tag(str(entry["name"]), int(entry["prior"]), float(entry["threshold"]), tuple(map(int, entry["classes"])))


def prior_from_count(count: int, images: int) -> int:
    """A tag's prior in 65536ths after it was seen in `count` of `images` images.

    One image with and one without are added, so that a tag never seen still costs at most some 13 bits.
    """
    return min(max(round(PRIOR_ONE * (count + 1) / (images + 2)), 1), PRIOR_ONE - 1)


def merge_nouns(*lists: Sequence[str]) -> list[str]:
    """All nouns of some lists in plain lower case, sorted, without duplicates."""
    return sorted({plain_noun(noun) for nouns in lists for noun in nouns})


def plain_noun(noun: str) -> str:
    """A noun as vocabularies spell it: lower case, single blanks."""
    return " ".join(noun.lower().split())


def tag_prior(vocabulary: Vocabulary) -> TagPrior:
    """The coding prior of a vocabulary."""
    return TagPrior(vocabulary.names, np.array(vocabulary.priors, np.uint16))


def known_prior(fingerprint: str) -> TagPrior | None:
    """The vocabulary of a capsule on this machine by the first digits of its fingerprint, None for any other model."""
    path = capsule_of(fingerprint)  # looked for each time: models come and go while a process runs
    if path is not None:
        with suppress(CapsuleError):  # a damaged vocabulary must not hide what else a stream says
            return _prior_at(path, fingerprint)
    return None


@cache
def _prior_at(path: Path, fingerprint: str) -> TagPrior:
    return capsule_prior(path)  # another model may take its place: it has another fingerprint


def capsule_prior(path: Path) -> TagPrior:
    """The coding prior of a capsule. Raises CapsuleError where its tags are damaged, or not those it was sealed with:
    all that follows in a stream would have other names."""
    verify(path, [VOCABULARY], again=False)
    return tag_prior(Vocabulary.load(path / VOCABULARY))
