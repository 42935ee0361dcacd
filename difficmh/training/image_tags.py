"""Tags of the training pictures, from a file or a tagger, and the vocabularies that weights have learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difficmh.capsule import VOCABULARY
from difficmh.codec import Tagger
from difficmh.training.data import TrainingSample
from difficmh.training.history import read_checkpoint
from difficmh.vocabulary import Vocabulary
from difficmh.zoo import load_tagger


@dataclass(frozen=True)
class TagSource:
    """`names` are the vocabulary, in its order; `find` gives the tags of each picture, all of them names."""

    names: Sequence[str]
    find: Callable[[Sequence[TrainingSample]], Sequence[Iterable[str]]]


def tag_source(place: Path, device: str = "cpu") -> TagSource:
    """From a JSON file `{"names": [...], "tags": {key: [name, ...]}}`, or by the tagger of a capsule of any family.

    A file knows only the pictures whose keys it has; the rest has no tags. The tagger of `lite` takes about 40 ms for a
    picture on one CPU core, RAM++ of `sd21` many times that. Raises CapsuleError where the capsule has no vocabulary or
    tagger, ValueError for another file, and for one with tags that are none of its names.
    """
    if place.is_dir():
        return _by_tagger(learned_vocabulary(place), load_tagger(place, device))
    try:
        content = json.loads(place.read_text())
        names, tags = content["names"], dict(content["tags"])
        unknown = {tag for found in tags.values() for tag in found} - set(names)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} holds no tags by image key: {error!r}") from error
    if unknown:
        raise ValueError(f"{place} has tags that are none of its names, such as {min(map(str, unknown))!r}")
    return TagSource(names, lambda samples: [tags.get(sample.key, ()) for sample in samples])


def _by_tagger(names: Sequence[str], tagger: Tagger) -> TagSource:
    def find(samples: Sequence[TrainingSample]) -> list[list[str]]:
        return [[tag.name for tag in found] for found in tagger([sample.pixels for sample in samples])]

    return TagSource(names, find)


def learned_vocabulary(place: Path) -> tuple[str, ...]:
    """The tags that the weights of a checkpoint or a capsule were trained for; empty where a checkpoint has none."""
    if place.is_dir():
        return Vocabulary.load(place / VOCABULARY).names
    return tuple(read_checkpoint(place, mmap=True).get("options", {}).get("vocabulary", ()))


def carried_over(embeddings: Tensor, known: Sequence[str], fresh: Tensor, names: Sequence[str]) -> Tensor:
    """`fresh` embeddings `(V, D)` of `names`, with those of tags that were `known` before taken from `embeddings`.

    Where `known` is empty, tags are told by their number alone: as many as before are taken for the same.
    """
    if not known:
        return embeddings if len(embeddings) == len(names) else fresh
    row = {name: index for index, name in enumerate(known)}
    rows = [embeddings[row[name]] if name in row else fresh[index] for index, name in enumerate(names)]
    return torch.stack(rows)


def tag_matrix(samples: Sequence[TrainingSample], source: TagSource | None, size: int) -> Tensor:
    """`(N, size)` uint8 indicators; zeros where there is no source."""
    matrix = torch.zeros(len(samples), size, dtype=torch.uint8)
    if source is None:
        return matrix
    position = {name: index for index, name in enumerate(source.names)}
    for row, found in zip(matrix, source.find(samples), strict=True):
        for name in found:
            row[position[name]] = 1
    return matrix
