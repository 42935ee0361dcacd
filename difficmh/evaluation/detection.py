"""Boxes against boxes: which detections are right, average precision at an overlap of one half, agreement.

mAP@50 as PASCAL VOC has counted it since 2010: detections of a class over all pictures in the order of their scores;
each takes the unmatched object of its picture that it overlaps most, and is wrong where that is less than half; the
average precision is the area under precision over recall, precision made non-increasing; the mean is over the classes
that have objects. Unlike in VOC a second detection of an object may take another object that it overlaps by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difficmh.evaluation.graders import Box
from difficmh.evaluation.statistics import Counts, Statistic, Weights

OVERLAP = 0.5
"""Intersection over union from which on a detection has found an object."""

COMMON = 5
"""Objects from which on a class is common: of a single one the average precision is all or nothing, and a mean over
classes hangs on it."""


@dataclass(frozen=True)
class Detection:
    """A box that a network is `score` sure of, in [0, 1]."""

    box: Box
    score: float


@dataclass(frozen=True)
class Judged:
    """The detections of one picture, judged: label, score and whether it is right; and the objects of each class."""

    detections: tuple[tuple[str, float, bool], ...]
    objects: tuple[tuple[str, int], ...]


def overlap(first: Box, second: Box) -> float:
    """Intersection over union, in [0, 1]; 0 for boxes without area."""
    left, top = (max(first.corners[i], second.corners[i]) for i in (0, 1))
    right, bottom = (min(first.corners[i], second.corners[i]) for i in (2, 3))
    common = max(0.0, right - left) * max(0.0, bottom - top)
    union = _area(first) + _area(second) - common
    return common / union if union > 0 else 0.0


def _area(box: Box) -> float:
    left, top, right, bottom = box.corners
    return max(0.0, right - left) * max(0.0, bottom - top)


def judge(detections: Sequence[Detection], objects: Sequence[Box]) -> Judged:
    """Match detections to objects of their class, the surest first."""
    free = list(objects)
    judged = []
    for detection in sorted(detections, key=lambda one: -one.score):
        same = [box for box in free if box.label == detection.box.label]
        best = max(same, key=lambda box: overlap(box, detection.box), default=None)
        right = best is not None and overlap(best, detection.box) >= OVERLAP
        if right and best is not None:
            free.remove(best)
        judged.append((detection.box.label, detection.score, right))
    labels = [box.label for box in objects]
    return Judged(tuple(judged), tuple((label, labels.count(label)) for label in dict.fromkeys(labels)))


def matches(original: Sequence[Detection], decoded: Sequence[Detection]) -> Counts:
    """How many detections there are in both, in one only."""
    judged = judge(decoded, [detection.box for detection in original])
    hits = sum(right for _, _, right in judged.detections)
    return Counts(hits, len(decoded) - hits, len(original) - hits)


def mean_average_precision(pictures: Sequence[Judged], least: int = 1) -> Statistic:
    """mAP over the classes that have `least` objects, in [0, 1]; a picture of weight 2 counts as two pictures."""
    tables = [_class_table(label, pictures) for label in _labels(pictures)]
    tables = [table for table in tables if table.objects.sum() >= least]

    def statistic(weights: Weights) -> float | None:
        found = [table.average_precision(weights) for table in tables]
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else None

    return statistic


def common_precision(pictures: Sequence[Judged]) -> Statistic:
    """mAP over the common classes, as above."""
    return mean_average_precision(pictures, COMMON)


@dataclass(frozen=True)
class _ClassTable:
    """Detections of one class in falling order of score, and the objects of that class in each picture."""

    pictures: NDArray[np.intp]
    right: NDArray[np.bool_]
    objects: NDArray[np.float64]

    def average_precision(self, weights: Weights) -> float | None:
        objects = self.objects @ weights
        if objects <= 0:
            return None
        counted = weights[self.pictures]
        hits = np.cumsum(counted * self.right)
        precision = hits / np.maximum(np.cumsum(counted), 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(hits, prepend=0.0) * envelope) / objects)


def _labels(pictures: Sequence[Judged]) -> list[str]:
    return sorted({label for picture in pictures for label, _ in picture.objects})


def _class_table(label: str, pictures: Sequence[Judged]) -> _ClassTable:
    found = [
        (score, index, right)
        for index, picture in enumerate(pictures)
        for name, score, right in picture.detections
        if name == label
    ]
    found.sort(key=lambda one: -one[0])
    objects = np.array([dict(picture.objects).get(label, 0) for picture in pictures], np.float64)
    indices = np.array([index for _, index, _ in found], np.intp)
    return _ClassTable(indices, np.array([right for *_, right in found], np.bool_), objects)
