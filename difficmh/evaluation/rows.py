"""Measurements as flat rows of a table, and back.

A score is a column of its metric's name; counts are three (`…_hits`, `…_extra`, `…_missed`), judged detections a JSON
text (`…_judged`), crops bytes. Only moments of features, a tenth of a megabyte for each picture, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeAlias

from difficmh.evaluation.detection import Judged
from difficmh.evaluation.graders import Evidence
from difficmh.evaluation.measure import Measurement
from difficmh.evaluation.statistics import Counts

Cell: TypeAlias = str | int | float | bytes | None

ABOUT = [field.name for field in fields(Measurement) if field.name != "evidence"]
COUNTS = [field.name for field in fields(Counts)]


def flat_rows(measurements: Sequence[Measurement]) -> list[dict[str, Cell]]:
    """A row for each measurement, all with the same columns; None where a picture says nothing."""
    rows = [_flat_row(one) for one in measurements]
    empty = dict.fromkeys(name for row in rows for name in row)
    return [empty | row for row in rows]


def _flat_row(measurement: Measurement) -> dict[str, Cell]:
    row = {name: getattr(measurement, name) for name in ABOUT}
    for name, value in measurement.evidence.items():
        if isinstance(value, Counts):
            row |= {f"{name}_{part}": count for part, count in asdict(value).items()}
        elif isinstance(value, Judged):
            row[f"{name}_judged"] = json.dumps(asdict(value))
        elif isinstance(value, (int, float)):
            row[name] = float(value)
    return row


def measurements_of(rows: Sequence[Mapping[str, Any]]) -> list[Measurement]:
    """The measurements of `flat_rows`, but for what it leaves out. Raises ValueError for other rows."""
    if missing := [name for name in ABOUT if rows and name not in rows[0]]:
        raise ValueError(f"the measurements have no {', '.join(missing)}: an earlier version wrote them, measure again")
    return [Measurement(**{name: row[name] for name in ABOUT}, evidence=_evidence(row)) for row in rows]


def _evidence(row: Mapping[str, Any]) -> Evidence:
    evidence: dict[str, Any] = {}
    for column, value in row.items():
        if value is None or column in ABOUT:
            continue
        name, _, part = column.rpartition("_")
        if part in COUNTS and f"{name}_{COUNTS[0]}" in row:
            evidence[name] = Counts(*(row[f"{name}_{one}"] for one in COUNTS))
        elif part == "judged":
            evidence[name] = _judged(json.loads(value))
        else:
            evidence[column] = value
    return evidence


def _judged(content: Mapping[str, Any]) -> Judged:
    detections = tuple((label, score, right) for label, score, right in content["detections"])
    return Judged(detections, tuple((label, count) for label, count in content["objects"]))
