"""Distinct keys within a shard: a sample that comes again under a key already seen is kept under another one."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import Sample


class UniqueKeys:
    """Renames the second sample under a key to `key~2`, the third to `key~3`, in the order of the shard."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def rename(self, sample: Sample) -> Sample:
        """`sample`, under a key that no earlier sample of the shard has."""
        key = sample.key
        number = self._numbers.get(key, 1)
        while key in self._numbers:
            number += 1
            key = f"{sample.key}~{number}"
        self._numbers[sample.key] = number
        self._numbers.setdefault(key, 1)
        return sample if key == sample.key else replace(sample, key=key)
