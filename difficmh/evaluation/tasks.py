"""What models still see in a decoded picture: classes, objects, tags, or the answers of any analyzer.

What trains never grades: EfficientNet-Lite0 takes part in training, so classes are those of Lite2, and objects those of
FastestDet. The tags are the exception: they come from a codec's own tagger (that of `lite` is built on Lite0), and say
whether tags survive decoding, not how good a picture is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from difficmh.evaluation.detection import COMMON, Detection, common_precision, judge, matches, mean_average_precision
from difficmh.evaluation.fastestdet import FastestDet
from difficmh.evaluation.graders import Evidence, Image, Picture, Truth, as_tensor
from difficmh.evaluation.statistics import Counts, Metric, f1, mean

SURE = 0.55
"""Score from which a detection counts as an object that was seen."""

CLASS_AGREEMENT = Metric("class_agreement", "same ImageNet class (Lite2)", mean, family="task")
CLASS_OVERLAP = Metric("class_top5_overlap", "shared top 5 ImageNet classes (Lite2)", mean, family="task")
ON_ORIGINALS = "detection_map50_on_originals"
DETECTION_MAP = Metric(
    "detection_map50",
    "mAP@50 against labels (FastestDet)",
    mean_average_precision,
    family="task",
    original=ON_ORIGINALS,
    note="only pictures with marked boxes, only classes that their source marks and the detector knows",
)
DETECTION_AGREEMENT_MAP = Metric(
    "detection_agreement_map50",
    "mAP@50 against detections on the original",
    mean_average_precision,
    family="task",
    note=f"what FastestDet finds on the original with a score of {SURE} or more counts as true",
)
DETECTION_AGREEMENT_COMMON = Metric(
    "detection_agreement_map50_common",
    f"the same, classes with {COMMON} objects or more",
    common_precision,
    family="task",
    note="a class with one object counts as much as any other in the table above, and is found or not",
)
DETECTION_AGREEMENT = Metric("detection_agreement_f1", f"F1 of detections (FastestDet, ≥ {SURE})", f1, family="task")
TAG_AGREEMENT = Metric(
    "tag_agreement_f1",
    "F1 of tags (the codec's tagger)",
    f1,
    family="task",
    note="not a grade: the tagger of lite is built on EfficientNet-Lite0, which takes part in training",
)


class Classification:
    """Classes of EfficientNet-Lite2 on the decoded picture against those on the original: the first, and the five."""

    metrics: Sequence[Metric] = (CLASS_AGREEMENT, CLASS_OVERLAP)

    def __init__(self, device: str = "cpu") -> None:
        from difficmh.analyzers.imagenet import ImagenetAnalyzer

        self._analyzer = ImagenetAnalyzer(device)

    def reference(self, picture: Picture) -> list[str]:
        return self._classes(picture.pixels)

    def grade(self, reference: list[str], decoded: Image) -> Evidence:
        found = self._classes(decoded)
        shared = len(set(reference) & set(found)) / len(reference)
        return {"class_agreement": float(reference[0] == found[0]), "class_top5_overlap": shared}

    def _classes(self, image: Image) -> list[str]:
        return self._analyzer([as_tensor(image)])[0].wordnet_ids


@dataclass(frozen=True)
class SeenObjects:
    """What a detector finds in an original, and what people marked there of the classes that it knows."""

    detections: Sequence[Detection]
    truth: Truth | None


class ObjectDetection:
    """FastestDet's objects against marked ones, and against those on the original, in pictures of some names."""

    metrics: Sequence[Metric] = (
        DETECTION_MAP,
        DETECTION_AGREEMENT_MAP,
        DETECTION_AGREEMENT_COMMON,
        DETECTION_AGREEMENT,
    )

    def __init__(self, model: Path, names: str = "*", device: str = "cpu") -> None:
        self._detector = FastestDet(model, device)
        self._names = names

    def reference(self, picture: Picture) -> SeenObjects | None:
        if not fnmatchcase(picture.name, self._names):
            return None
        return SeenObjects(self._detector(picture.pixels), self._known(picture.truth))

    def grade(self, reference: SeenObjects | None, decoded: Image) -> Evidence:
        if reference is None:
            return {}
        found = self._detector(decoded)
        sure = [one for one in reference.detections if one.score >= SURE]
        judged = judge(found, [one.box for one in sure])
        evidence: dict[str, Any] = {
            "detection_agreement_map50": judged,
            "detection_agreement_map50_common": judged,
            "detection_agreement_f1": matches(sure, [one for one in found if one.score >= SURE]),
        }
        if (truth := reference.truth) is not None:
            for name, detections in (("detection_map50", found), (ON_ORIGINALS, reference.detections)):
                scored = [one for one in detections if one.box.label in truth.classes]
                evidence[name] = judge(scored, truth.boxes)
        return evidence

    def _known(self, truth: Truth | None) -> Truth | None:
        classes = truth.classes & set(self._detector.labels) if truth else frozenset()
        if truth is None or not classes:
            return None
        return Truth(tuple(box for box in truth.boxes if box.label in classes), classes)


class Tags:
    """Tags of a capsule's tagger on the decoded picture against those on the original."""

    metrics: Sequence[Metric] = (TAG_AGREEMENT,)

    def __init__(self, capsule: str, device: str = "cpu") -> None:
        from difficmh.capsule import capsule_path
        from difficmh.zoo import load_tagger

        self._tagger = load_tagger(capsule_path(capsule), device)

    def reference(self, picture: Picture) -> set[str]:
        return self._tags(picture.pixels)

    def grade(self, reference: set[str], decoded: Image) -> Evidence:
        return {"tag_agreement_f1": Counts.of_sets(reference, self._tags(decoded))}

    def _tags(self, image: Image) -> set[str]:
        return {tag.name for tag in self._tagger([image])[0]}


class AnyAnalyzer:
    """How far the answers of any analyzer to the decoded picture agree with those to the original, in [0, 1]."""

    def __init__(self, factory: Callable[[str], Any], device: str = "cpu") -> None:
        self._analyzer = factory(device)
        self._name = f"agreement_{self._analyzer.name}"
        self.metrics: Sequence[Metric] = (
            Metric(self._name, f"agreement of {self._analyzer.name}", mean, family="task"),
        )

    def reference(self, picture: Picture) -> Any:
        return self._analyzer([as_tensor(picture.pixels)])[0]

    def grade(self, reference: Any, decoded: Image) -> Evidence:
        return {self._name: agreement(reference, self._analyzer([as_tensor(decoded)])[0])}


def agreement(original: Any, decoded: Any) -> float:
    """The mean over the fields of two rows of one type: what is equal of texts, how parallel or close numbers are.

    Texts and lists of texts: shared entries over all entries. Lists of numbers, also nested: the cosine between the
    two, 0 where it is negative or they differ in shape. Single numbers: 1 less their distance over the larger one's
    size, 0 at least. Fields that are equal agree by 1; what only says the shape of another field does not count.
    """
    names = [field.name for field in fields(original)]
    counted = [name for name in names if name.removesuffix("_shape") not in set(names) - {name}]
    return float(np.mean([_field_agreement(getattr(original, name), getattr(decoded, name)) for name in counted]))


def _field_agreement(original: Any, decoded: Any) -> float:
    try:
        first, second = np.asarray(original), np.asarray(decoded)
    except ValueError:  # lists of lists of several lengths
        return float(original == decoded)
    if first.shape == second.shape and bool((first == second).all()):
        return 1.0
    if first.dtype.kind in "US" or second.dtype.kind in "US":
        texts = set(first.ravel().tolist()), set(second.ravel().tolist())
        return len(texts[0] & texts[1]) / len(texts[0] | texts[1])
    if first.shape != second.shape:
        return 0.0
    first, second = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    if first.size == 1:
        return max(0.0, 1 - float(abs(first - second)[0] / max(abs(first), abs(second))[0]))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return max(0.0, float(first @ second) / lengths) if lengths else 0.0
