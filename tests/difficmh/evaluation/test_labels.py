"""Marked objects from the JSON beside pictures."""

from __future__ import annotations

import pytest

from difficmh.evaluation.graders import Box, Truth
from difficmh.evaluation.labels import classes_by_source, truth

CAR = {"label": "car", "box": [0, 0, 0.5, 1]}
BUS = {"label": "bus", "box": [0.5, 0, 1, 1]}


def test_a_source_marks_what_it_marks_anywhere() -> None:
    labels = [{"source": "a", "objects": [CAR]}, {"source": "a", "objects": [BUS]}, {"source": "b", "objects": []}]
    listed = [*labels, None, {"source": "c", "label_kind": "none"}]
    classes = classes_by_source({f"{number}.jpg": label for number, label in enumerate(listed)})
    assert classes == {"a": {"car", "bus"}, "b": frozenset()}
    assert truth(labels[0], classes) == Truth((Box("car", (0, 0, 0.5, 1)),), frozenset({"car", "bus"}))


@pytest.mark.parametrize("label", [None, {}, {"labels": ["car"]}, {"label_kind": "segmentation", "objects": [CAR]}])
def test_pictures_in_which_no_boxes_were_looked_for(label: dict[str, object] | None) -> None:
    assert truth(label, {}) is None


@pytest.mark.parametrize("thing", [{"box": [0, 0, 1, 1]}, {"label": "car"}, {"label": "car", "box": [0, 1]}, "car"])
def test_objects_of_another_form(thing: object) -> None:
    with pytest.raises(ValueError, match=r"^a\.jpg: an object is no label with a box"):
        classes_by_source({"a.jpg": {"objects": [thing]}})


@pytest.mark.parametrize("objects", [3, None, "car", {"car": [0, 0, 1, 1]}])
def test_objects_that_are_no_list(objects: object) -> None:
    with pytest.raises(ValueError, match=r"^a\.jpg: its objects are no list: "):
        classes_by_source({"a.jpg": {"objects": objects}})


def test_boxes_in_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a\.jpg: a box is not relative to the picture"):
        classes_by_source({"a.jpg": {"objects": [{"label": "car", "box": [12, 40, 180, 200]}]}})
    slightly_over = {"label": "car", "box": [-0.01, 0, 1, 1.02]}
    assert classes_by_source({"a.jpg": {"objects": [slightly_over]}}) == {"": {"car"}}


def test_marked_classes_are_called_as_the_detector_calls_them() -> None:
    names = ["Motorbike", "tvmonitor", "traffic  light", "car"]
    label = {"objects": [{**CAR, "label": name} for name in names]}
    assert classes_by_source({"a.jpg": label}) == {"": {"motorcycle", "tv", "traffic light", "car"}}


def test_boxes_that_are_upside_down() -> None:
    with pytest.raises(ValueError, match="not x1, y1, x2, y2"):
        classes_by_source({"a.jpg": {"objects": [{"label": "car", "box": [0.5, 0, 0.2, 1]}]}})
