"""In which order test files go to processes, where there are several: `pytest --numprocesses 2 --dist loadfile`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

LONG_WORK = ("pytest.mark.ray", "pytest.mark.slow")


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts: files that start a Ray or work for long come first, so that the many short ones even the processes out.

    The order is the same in every process, as it has to be.
    """
    items.sort(key=lambda item: not works_for_long(item.path))


@cache
def works_for_long(file: Path) -> bool:
    """Whether some test of this file carries one of the marks of long work."""
    text = file.read_text(encoding="utf-8")
    return any(mark in text for mark in LONG_WORK)
