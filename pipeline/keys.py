"""Distinct keys and names: one that comes again gets a number."""

from __future__ import annotations


class Distinct:
    """Names in the order they come: the second `a` becomes `a~2`, the third `a~3`; what is taken is passed over."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """`name`, with a number behind it if need be: what no earlier call has returned."""
        distinct, number = name, self._numbers.get(name, 1)
        while distinct in self._numbers:
            number += 1
            distinct = f"{name}~{number}"
        self._numbers[name] = number
        self._numbers.setdefault(distinct, 1)
        return distinct
