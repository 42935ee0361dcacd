"""What training images say about tags: yes, no, perhaps, or nothing.

Each source annotates some nouns only, so a missing label is a "no" just for the nouns its source annotates. Elsewhere
an ordinary noun is probably absent (a weak "no"), while scenery (sky, trees, people) may well be there unmentioned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.vocabulary import plain_noun

Metadata = Mapping[str, Any]

DETECTION_SCORE = 0.75
"""Detections from here on count as a "yes"; weaker ones only keep the noun from counting as absent."""

PSEUDO_WEIGHT = 0.5
ABSENT_WEIGHT = 0.2
ABSENT_SCENERY_WEIGHT = 0.02

SCENERY = frozenset(
    {
        "bicycle",
        "building",
        "car",
        "chair",
        "clothing",
        "door",
        "fence",
        "house",
        "lane marking",
        "license plate",
        "person",
        "plant",
        "pole",
        "road",
        "sidewalk",
        "sky",
        "street",
        "table",
        "traffic sign",
        "tree",
        "truck",
        "window",
    }
)
"""Nouns that a photograph often shows without any source mentioning them."""


@dataclass(frozen=True)
class TagLabels:
    """`(N, T)` each: targets in [0, 1], weights of their losses, and what is known for certain.

    `annotated`: the source says yes or no. `presumed`: a weak "no" that nobody said; training may doubt it.
    """

    targets: Tensor
    weights: Tensor
    annotated: Tensor
    presumed: Tensor


def with_plain_nouns(sample: Metadata) -> dict[str, Any]:
    """The same sample, with labels and detections as the vocabulary spells nouns."""
    plain = dict(sample)
    if sample.get("labels") is not None:
        plain["labels"] = [plain_noun(label) for label in sample["labels"]]
    if sample.get("detected"):
        plain["detected"] = [{**found, "label": plain_noun(found["label"])} for found in sample["detected"]]
    return plain


def label_counts(samples: Sequence[Metadata]) -> Counter[str]:
    """In how many samples each noun is a ground-truth label."""
    return Counter(noun for sample in samples for noun in sample.get("labels") or ())


def annotated_nouns(samples: Sequence[Metadata]) -> dict[str, frozenset[str]]:
    """The nouns that each source annotates: those it uses anywhere."""
    nouns: dict[str, set[str]] = {}
    for sample in samples:
        nouns.setdefault(sample.get("source", ""), set()).update(sample.get("labels") or ())
    return {source: frozenset(used) for source, used in nouns.items()}


def read_labels(
    samples: Sequence[Metadata], names: Sequence[str], sources: Mapping[str, frozenset[str]], classes: Tensor
) -> TagLabels:
    """Labels of samples for the nouns `names`.

    `classes`, `(N, T)` in [0, 1], is the ImageNet classifier's probability that the noun is shown (0 where it does not
    know the noun): from 0.5 on it counts like a sure detection.
    """
    positions = {name: position for position, name in enumerate(names)}
    shape = (len(samples), len(names))
    targets, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    annotated, doubtful = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, sample in enumerate(samples):
        if sample.get("labels") is not None:
            known = [positions[name] for name in sources.get(sample.get("source", ""), ()) if name in positions]
            annotated[row, known] = True
            targets[row, [positions[name] for name in sample["labels"] if name in positions]] = 1
        for detection in sample.get("detected", ()):
            position = positions.get(detection["label"])
            if position is None or annotated[row, position]:
                continue
            doubtful[row, position] = True
            if detection["score"] >= DETECTION_SCORE:
                targets[row, position] = max(targets[row, position], detection["score"])
    # A label outside what the source annotates in training (in a test set) is known all the same.
    annotated |= (targets == 1) & ~doubtful
    pseudo = ~annotated & ((targets > 0) | (classes.numpy() >= 0.5))
    targets = np.where(pseudo, np.maximum(targets, classes.numpy()), targets)
    presumed = ~annotated & ~pseudo & ~doubtful
    weights[annotated], weights[pseudo] = 1, PSEUDO_WEIGHT
    weights = np.where(presumed, _absent_weights(samples, names), weights)
    return TagLabels(*(torch.from_numpy(array) for array in (targets, weights, annotated, presumed)))


def _absent_weights(samples: Sequence[Metadata], names: Sequence[str]) -> NDArray[np.float32]:
    """`(N, T)`: pictures taken for one object show little scenery; of others nothing is known."""
    scenery = np.array([name in SCENERY for name in names], bool)
    one_object = np.array([sample.get("label_kind") == "image-class" for sample in samples], bool)
    weights = np.where(scenery & ~one_object[:, None], ABSENT_SCENERY_WEIGHT, ABSENT_WEIGHT)
    halved = np.where(scenery & one_object[:, None], weights / 2, weights)
    return halved.astype(np.float32)
