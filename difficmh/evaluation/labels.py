"""Marked objects from the JSON that lies beside a picture in a data set.

    {"source": "…", "label_kind": "boxes", "objects": [{"label": "car", "box": [x1, y1, x2, y2]}]}

Boxes are relative to the picture; labels of PASCAL VOC are taken for COCO's. A source marks some classes and leaves
others out; which ones, nobody writes down. The classes that are marked anywhere in the pictures of one `source` are
taken for those that it looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from difficmh.evaluation.graders import Box, Truth
from difficmh.vocabulary import plain_noun

Label = Mapping[str, Any]

PLAIN_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""PASCAL VOC's names of classes, which some data sets and detectors keep, and COCO's."""

OUTSIDE = 0.05
"""Share of the picture by which a box may reach over its edge: more, and its numbers are no shares."""


def classes_by_source(labels: Mapping[str, Label | None]) -> dict[str, frozenset[str]]:
    """What each source marks, from what lies beside each picture.

    Raises ValueError, with the picture's name, for objects that are not of the form above.
    """
    found: dict[str, set[str]] = {}
    for picture, label in labels.items():
        if label is not None and is_marked(label):
            try:
                names = {box.label for box in boxes(label)}
            except ValueError as error:
                raise ValueError(f"{picture}: {error}") from error
            found.setdefault(_source(label), set()).update(names)
    return {source: frozenset(names) for source, names in found.items()}


def truth(label: Label | None, classes: Mapping[str, frozenset[str]]) -> Truth | None:
    """What is marked in a picture with this JSON; None where it has no boxes to say so."""
    if label is None or not is_marked(label):
        return None
    return Truth(tuple(boxes(label)), classes.get(_source(label), frozenset()))


def is_marked(label: Label) -> bool:
    """Whether boxes were looked for; an empty list of objects then says that there are none."""
    return "objects" in label and label.get("label_kind", "boxes") == "boxes"


def boxes(label: Label) -> list[Box]:
    """Raises ValueError for objects without a label, or whose box is not four numbers with x1 < x2 and y1 < y2, in
    [0, 1] or a little beside."""
    if not isinstance(label["objects"], list):
        raise ValueError(f"its objects are no list: {label['objects']!s:.100}")
    found = []
    for thing in label["objects"]:
        try:
            left, top, right, bottom = (float(side) for side in thing["box"])
            name = str(thing["label"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"an object is no label with a box of four numbers: {thing!s:.100}") from error
        if not (left < right and top < bottom):
            raise ValueError(f"a box is not x1, y1, x2, y2: {thing!s:.100}")
        if min(left, top) < -OUTSIDE or max(right, bottom) > 1 + OUTSIDE:
            raise ValueError(f"a box is not relative to the picture, from 0 to 1: {thing!s:.100}")
        found.append(Box(plain_name(name), (left, top, right, bottom)))
    return found


def plain_name(label: str) -> str:
    """A class as detectors and people both call it here: COCO's name, in lower case."""
    name = plain_noun(label)
    return PLAIN_NAMES.get(name, name)


def _source(label: Label) -> str:
    return str(label.get("source", ""))
