"""The files of an evaluation from which it can be summarised again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from pipeline.errors import JobError

SUMMARY, MEASUREMENTS = "evaluation.json", "measurements.parquet"


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row for each measurement; all have the same columns."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / MEASUREMENTS)


def read_files(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and the rows of an earlier evaluation. Raises JobError where they are not there or are damaged."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return content, pyarrow.parquet.read_table(folder / MEASUREMENTS).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own are both
        raise JobError(f"{folder} has no evaluation to go on from: {error}") from error
