"""What models see in a decoded picture, with models whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from difficmh.analyzers import imagenet
from difficmh.evaluation import tasks
from difficmh.evaluation.detection import Detection
from difficmh.evaluation.graders import Box, Image, Picture, Truth
from difficmh.evaluation.statistics import Counts
from difficmh.evaluation.tasks import ON_ORIGINALS, AnyAnalyzer, Classification, ObjectDetection, agreement

BRIGHT, DARK = (np.full((8, 8, 3), level, np.uint8) for level in (200, 50))
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


class BrightDetector:
    """Sees a car at the left of bright pictures, and a faint dog at the right of all."""

    labels = ("car", "dog")

    def __init__(self, model: Path, device: str) -> None: ...

    def __call__(self, image: Image) -> list[Detection]:
        faint = [Detection(Box("dog", RIGHT), 0.3)]
        return [Detection(Box("car", LEFT), 0.9), *faint] if image.mean() > 100 else faint


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> ObjectDetection:
    monkeypatch.setattr(tasks, "FastestDet", BrightDetector)
    return ObjectDetection(Path("model.onnx"), names="street*")


def values(grader: ObjectDetection, picture: Picture, decoded: Image) -> dict[str, float | None]:
    evidence = grader.grade(grader.reference(picture), decoded)
    known = {metric.name: metric.combine([evidence[metric.name]])(np.ones(1)) for metric in grader.metrics[1:]}
    assert known.pop("detection_agreement_map50_common") is None  # one object of a class
    if ON_ORIGINALS in evidence:
        for name in ("detection_map50", ON_ORIGINALS):
            known[name] = grader.metrics[0].combine([evidence[name]])(np.ones(1))
    return known


def test_detections_against_labels_and_against_the_original(detector: ObjectDetection) -> None:
    truth = Truth((Box("car", LEFT), Box("license plate", RIGHT)), frozenset({"car", "license plate"}))
    picture = Picture("street7", BRIGHT, truth)
    same, lost = values(detector, picture, BRIGHT), values(detector, picture, DARK)
    assert same == dict.fromkeys(same, 1.0)
    assert lost == {**dict.fromkeys(lost, 0.0), ON_ORIGINALS: 1.0}
    assert len(same) == 4


def test_pictures_without_labels_or_of_other_names(detector: ObjectDetection) -> None:
    evidence = detector.grade(detector.reference(Picture("street7", BRIGHT)), BRIGHT)
    assert "detection_map50" not in evidence
    assert evidence["detection_agreement_f1"] == Counts(1, 0, 0)
    assert detector.grade(detector.reference(Picture("kodim01", BRIGHT)), BRIGHT) == {}


def test_labels_that_the_detector_does_not_know_are_no_labels(detector: ObjectDetection) -> None:
    truth = Truth((Box("license plate", RIGHT),), frozenset({"license plate"}))
    assert "detection_map50" not in detector.grade(detector.reference(Picture("street7", BRIGHT, truth)), BRIGHT)


def test_classes_by_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    class Analyzer:
        def __init__(self, device: str) -> None: ...

        def __call__(self, images: list[object]) -> list[imagenet.ImagenetRow]:
            bright = float(images[0].mean()) > 0.5  # type: ignore[attr-defined]
            return [imagenet.ImagenetRow([], list("abcde") if bright else list("bafgh"), [])]

    monkeypatch.setattr(imagenet, "ImagenetAnalyzer", Analyzer)
    grader = Classification()
    reference = grader.reference(Picture("any", BRIGHT))
    assert grader.grade(reference, BRIGHT) == {"class_agreement": 1.0, "class_top5_overlap": 1.0}
    assert grader.grade(reference, DARK) == {"class_agreement": 0.0, "class_top5_overlap": 0.4}


@dataclass(frozen=True)
class Answer:
    names: list[str]
    scores: list[float]
    count: int = 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Answer(["a"], [1, 0]), Answer(["a"], [1, 0]), 1),
        (Answer(["a", "b"], [1, 0]), Answer(["b", "c"], [0, 1]), (1 / 3 + 0 + 1) / 3),
        (Answer([], []), Answer([], []), 1),
        (Answer(["a"], [1, 1]), Answer(["a"], [-1, -1]), 2 / 3),
        (Answer(["a"], [3, 4]), Answer(["a"], [4, 3], count=2), (1 + 24 / 25 + 1 / 2) / 3),
        (Answer(["a"], [1]), Answer(["a"], [1, 2]), 2 / 3),
        (Answer([], [0, 0]), Answer([], [1, 1]), 2 / 3),
    ],
)
def test_agreement_of_any_two_rows(first: Answer, second: Answer, expected: float) -> None:
    assert agreement(first, second) == pytest.approx(expected)


@dataclass(frozen=True)
class Output:
    """As an ONNX model answers, and another one."""

    boxes: list[list[float]]
    values: list[float]
    values_shape: list[int]


@pytest.mark.parametrize(
    ("values", "shape", "boxes", "expected"),
    [
        ([1, 0], [2], [[1, 2], [3, 4]], 1),
        ([0, 1], [2], [[1, 2], [3, 4]], 1 / 2),  # and not 2 / 3: that their shapes agree says nothing
        ([1, 0], [1, 2], [[-1, -2], [-3, -4]], 1 / 2),
        ([1, 0], [2], [[1, 2], [3, 4], [5]], 1 / 2),
    ],
)
def test_agreement_of_nested_numbers(
    values: list[float], shape: list[int], boxes: list[list[float]], expected: float
) -> None:
    first = Output([[1, 2], [3, 4]], [1, 0], [2])
    assert agreement(first, Output(boxes, values, shape)) == pytest.approx(expected)


def test_any_analyzer_is_named_after_itself() -> None:
    class Mean:
        name = "mean"

        def __call__(self, images: list[object]) -> list[Answer]:
            return [Answer(["bright" if float(images[0].mean()) > 0.5 else "dark"], [1])]  # type: ignore[attr-defined]

    grader = AnyAnalyzer(lambda device: Mean())
    assert [metric.name for metric in grader.metrics] == ["agreement_mean"]
    reference = grader.reference(Picture("any", BRIGHT))
    assert grader.grade(reference, DARK) == pytest.approx({"agreement_mean": 2 / 3})
