"""What a training image says about tags it has, lacks, or says nothing about."""

from __future__ import annotations

from typing import Any

import torch

from difficmh.training.tag_labels import (
    ABSENT_SCENERY_WEIGHT,
    ABSENT_WEIGHT,
    PSEUDO_WEIGHT,
    TagLabels,
    annotated_nouns,
    label_counts,
    read_labels,
    with_plain_nouns,
)

NAMES = ("car", "milk", "sky", "truck")
STREET = {"source": "street", "label_kind": "boxes", "labels": ["car"], "detected": []}
OTHER_STREET = {**STREET, "labels": ["truck"]}
SHOP = {"source": "shop", "label_kind": "image-class", "labels": ["milk"], "detected": []}
UNKNOWN = {"source": "web", "label_kind": "none", "labels": None}


def labels(*samples: dict[str, Any], classes: dict[tuple[int, int], float] | None = None) -> TagLabels:
    probability = torch.zeros(len(samples), len(NAMES))
    for position, value in (classes or {}).items():
        probability[position] = value
    return read_labels(samples, NAMES, annotated_nouns([STREET, OTHER_STREET, SHOP]), probability)


def test_counts_and_annotated_nouns() -> None:
    assert label_counts([STREET, SHOP, UNKNOWN]) == {"car": 1, "milk": 1}
    assert annotated_nouns([STREET, OTHER_STREET, UNKNOWN]) == {"street": {"car", "truck"}, "web": frozenset()}


def test_a_missing_label_is_a_no_only_where_the_source_annotates_the_noun() -> None:
    found = labels(STREET)
    assert found.annotated.tolist() == [[True, False, False, True]]
    assert found.targets.tolist() == [[1, 0, 0, 0]]
    assert found.weights[0].tolist() == torch.tensor([1, ABSENT_WEIGHT, ABSENT_SCENERY_WEIGHT, 1]).tolist()
    assert found.presumed.tolist() == [[False, True, True, False]]


def test_unannotated_pictures_know_nothing_for_certain() -> None:
    found = labels({**UNKNOWN, "detected": []})
    assert not found.annotated.any()
    assert found.presumed.all()


def test_sure_detections_are_soft_labels_and_unsure_ones_keep_silent() -> None:
    detected = [{"label": "car", "score": 0.9}, {"label": "truck", "score": 0.6}, {"label": "zebra", "score": 0.9}]
    found = labels({**UNKNOWN, "detected": detected})
    assert found.targets[0, 0].item() == torch.tensor(0.9).item()
    assert found.weights[0, [0, 3]].tolist() == [PSEUDO_WEIGHT, 0]
    assert found.presumed[0].tolist() == [False, True, True, False]


def test_pictures_without_metadata_and_nouns_without_number_are_no_error() -> None:
    found = labels({}, {"labels": ["car"]})
    assert found.targets.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert annotated_nouns([{}, {"labels": ["car"]}]) == {"": {"car"}}
    assert read_labels([STREET], (), {}, torch.zeros(1, 0)).weights.shape == (1, 0)


def test_labels_are_spelt_as_in_the_vocabulary() -> None:
    plain = with_plain_nouns({"labels": ["Zebra  Crossing"], "detected": [{"label": "Car", "score": 0.9}]})
    assert plain == {"labels": ["zebra crossing"], "detected": [{"label": "car", "score": 0.9}]}
    assert with_plain_nouns(UNKNOWN) == UNKNOWN


def test_annotations_beat_detections() -> None:
    found = labels({**STREET, "labels": [], "detected": [{"label": "car", "score": 0.95}]})
    assert found.targets[0, 0] == 0
    assert found.weights[0, 0] == 1


def test_classes_the_classifier_is_sure_of_are_soft_labels() -> None:
    found = labels(UNKNOWN, STREET, classes={(0, 2): 0.8, (0, 1): 0.3, (1, 3): 0.9})
    assert found.targets[0].tolist() == torch.tensor([0, 0, 0.8, 0]).tolist()
    assert found.targets[1, 3] == 0, "the source says that there is no truck"
    assert found.weights[0, 2] == PSEUDO_WEIGHT


def test_labels_of_a_source_that_training_did_not_have() -> None:
    found = labels({**STREET, "source": "new", "labels": ["car"]})
    assert found.annotated.tolist() == [[True, False, False, False]]
