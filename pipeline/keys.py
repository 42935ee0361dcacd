"""Distinct keys within a shard: a sample that comes again under a key already seen is kept under another one."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import Failure, Sample


class UniqueKeys:
    """Renames the second sample under a key to `key~2`, the third to `key~3`, in the order of the shard."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def rename(self, item: Sample | Failure) -> Sample | Failure:
        """`item`, under a key that no earlier item of the shard has."""
        key = item.key
        number = self._numbers.get(key, 1)
        while key in self._numbers:
            number += 1
            key = f"{item.key}~{number}"
        self._numbers[item.key] = number
        self._numbers.setdefault(key, 1)
        return item if key == item.key else replace(item, key=key)
