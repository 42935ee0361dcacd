"""Detections of FastestDet (dog-qiuqiu/FastestDet, BSD 3-Clause), an ONNX file of one megabyte given by path.

Its class names lie beside it in `coco.names`, one a line. Nothing in this project is trained with it: it grades.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difficmh.analyzers.onnx import OnnxAnalyzer, OnnxOptions
from difficmh.errors import AnalyzerError
from difficmh.evaluation.detection import Detection, overlap
from difficmh.evaluation.graders import Box, Image, as_tensor
from difficmh.evaluation.labels import plain_name

LEAST_SCORE = 0.2
"""Fainter detections are dropped: they are many, and change no average precision by more than a thousandth or so."""

SAME_OBJECT = 0.45
"""Overlap above which the fainter of two detections, of whatever classes, is the same object again."""


class FastestDet:
    """The detector. Raises AnalyzerError where the file, its names or onnxruntime are missing or do not fit."""

    def __init__(self, model: Path, device: str = "cpu") -> None:
        if not model.is_file():
            raise AnalyzerError(f"no ONNX model at {model}")
        self.labels = _read_labels(model.with_name("coco.names"))
        self._analyzer = OnnxAnalyzer(model, device, OnnxOptions(channels="BGR"))

    def __call__(self, image: Image) -> list[Detection]:
        """Detections in an `(H, W, 3)` uint8 picture, the surest first."""
        row = self._analyzer([as_tensor(image)])[0]
        values, shape = (getattr(row, name) for name in _output_fields(row))
        if len(shape) != 4 or shape[1] != 5 + len(self.labels):
            raise AnalyzerError(f"{self._analyzer.name} gives {shape}, not 5 + {len(self.labels)} values for each cell")
        return detections(np.asarray(values).reshape(shape)[0], self.labels)


def _output_fields(row: object) -> Sequence[str]:
    fields = list(vars(row))
    if len(fields) != 2:
        raise AnalyzerError(f"FastestDet has one output; this model has {len(fields) // 2}")
    return fields


def _read_labels(path: Path) -> list[str]:
    if not path.is_file():
        raise AnalyzerError(f"the detector's class names are missing: {path}")
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [plain_name(name) for name in names]


def detections(cells: NDArray[np.float32], labels: Sequence[str]) -> list[Detection]:
    """From `(5 + classes, h, w)` numbers per cell to detections without repetitions.

    A cell has: is there an object, in [0, 1]; offsets of the middle from the cell (tanh of x, y, in cells); width and
    height relative to the picture (sigmoid); the probability of each class. The score is object^0.6 * class^0.4.
    """
    _, height, width = cells.shape
    scores = cells[0].clip(0, 1) ** 0.6 * cells[5:].max(axis=0).clip(0, 1) ** 0.4
    classes = cells[5:].argmax(axis=0)
    rows, columns = np.nonzero(scores >= LEAST_SCORE)
    middle_x = (columns + np.tanh(cells[1, rows, columns])) / width
    middle_y = (rows + np.tanh(cells[2, rows, columns])) / height
    half_width, half_height = (1 / (1 + np.exp(-cells[index, rows, columns])) / 2 for index in (3, 4))
    corners = np.stack(
        (middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height), axis=1
    ).clip(0, 1)
    found = [
        Detection(Box(labels[index], (box[0], box[1], box[2], box[3])), score)
        for index, box, score in zip(
            classes[rows, columns].tolist(), corners.tolist(), scores[rows, columns].tolist(), strict=True
        )
    ]
    return without_repetitions(found)


def without_repetitions(found: Sequence[Detection]) -> list[Detection]:
    """Non-maximum suppression over all classes together."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda one: -one.score):
        if all(overlap(detection.box, other.box) <= SAME_OBJECT for other in kept):
            kept.append(detection)
    return kept
