"""From the numbers of FastestDet to boxes, and, where the model is at hand, on a real frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from difficmh.errors import AnalyzerError
from difficmh.evaluation.fastestdet import FastestDet, detections

LABELS = ["person", "car"]


def cells(**where: tuple[float, ...]) -> np.ndarray:
    """7 numbers for each of 4 x 4 cells; `r1c2=(…)` sets those of one."""
    content = np.zeros((7, 4, 4), np.float32)
    for name, values in where.items():
        content[:, int(name[1]), int(name[3])] = values
    return content


def test_a_cell_becomes_a_box() -> None:
    (found,) = detections(cells(r1c2=(0.8, 0.0, np.arctanh(0.5), 0.0, np.log(1 / 3), 0.1, 0.9)), LABELS)
    assert found.box.label == "car"
    assert found.score == pytest.approx(0.8**0.6 * 0.9**0.4)
    # Middle (2, 1.5) of 4 cells; half the picture wide, a quarter high.
    assert found.box.corners == pytest.approx((0.25, 0.25, 0.75, 0.5), abs=1e-6)


def test_boxes_stay_within_the_picture_and_faint_ones_go() -> None:
    wide = (0.9, 0.0, 0.0, 3.0, 3.0, 0.9, 0.1)
    (found,) = detections(cells(r0c0=wide, r3c3=(0.05, 0, 0, 0, 0, 0.9, 0)), LABELS)
    assert min(found.box.corners) >= 0
    assert max(found.box.corners) <= 1


def test_the_same_object_is_found_once_whatever_its_class() -> None:
    first, again = (0.9, 0, 0, 0, 0, 0.9, 0.1), (0.8, np.arctanh(-0.9), 0, 0, 0, 0.1, 0.9)
    found = detections(cells(r1c1=first, r1c2=again), LABELS)
    assert [one.box.label for one in found] == ["person"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    model = tmp_path / "detector.onnx"
    with pytest.raises(AnalyzerError, match=r"no ONNX model at .*detector\.onnx"):
        FastestDet(model)
    model.write_bytes(b"")
    with pytest.raises(AnalyzerError, match=r"class names are missing: .*coco\.names"):
        FastestDet(model)


def test_cars_on_a_street(fastestdet: Path, street_frame: np.ndarray) -> None:
    detector = FastestDet(fastestdet)
    found = detector(street_frame)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert sum(one.box.label == "car" and one.score > 0.55 for one in found) >= 3
    assert "couch" in detector.labels
