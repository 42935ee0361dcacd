"""In which order test files go to processes, where there are several: `pytest --numprocesses 2 --dist loadfile`."""

from __future__ import annotations

import pytest

LONG_WORK = ("ray", "slow")


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts: files that start a Ray or work for long come first, so that the many short ones even the processes out.

    The order is the same in every process, as it has to be.
    """
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG_WORK))}
    items.sort(key=lambda item: item.path not in long)
