"""A second decoder of the coded symbols, written from `docs/bitstream.md` alone: slow, in exact integers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

LOWEST = 1 << 31
Table = tuple[list[int], int]
"""Cumulative counts and the first value."""


def _classes() -> list[int]:
    sign = [16382] + [max(1, 2 ** (14 - c)) for c in range(1, 16)]
    return _cumulative([*sign, *sign, 3, 1])


def _uniform(bits: int) -> list[int]:
    share = 65534 // 2**bits
    return _cumulative([share] * 2**bits + [65535 - share * 2**bits, 1])


def _cumulative(counts: Sequence[int]) -> list[int]:
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    assert sums[-1] == 65536
    return sums


class ReferenceDecoder:
    def __init__(self, payload: bytes) -> None:
        self.words = [int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4)]
        self.state = self.words[0] | self.words[1] << 32
        self.at = 2

    def at_end(self) -> bool:
        return self.at == len(self.words) and self.state == LOWEST

    def bin(self, cdf: list[int]) -> int:
        low = self.state & 0xFFFF
        number = bisect_right(cdf, low) - 1
        self.state = (cdf[number + 1] - cdf[number]) * (self.state >> 16) + low - cdf[number]
        if self.state < LOWEST:
            self.state = self.state << 32 | self.words[self.at]
            self.at += 1
        return number

    def pull(self, tables: Sequence[Table]) -> list[int]:
        """One value per table: the values of one push."""
        bins = [self.bin(cdf) for cdf, _ in tables]
        sizes = [len(cdf) - 3 for cdf, _ in tables]
        assert all(number <= size for number, size in zip(bins, sizes, strict=True))
        distances = iter(self._escapes(sum(number == size for number, size in zip(bins, sizes, strict=True))))
        values = []
        for (_, offset), number, size in zip(tables, bins, sizes, strict=True):
            if number < size:
                values.append(offset + number)
            else:
                distance = next(distances)
                values.append(offset + distance if distance < 0 else offset + size - 1 + distance)
        return values

    def _escapes(self, count: int) -> list[int]:
        classes = [self.bin(_classes()) for _ in range(count)]
        widths = [number % 16 for number in classes]
        sizes = [1 << width for width in widths]
        for i, width in enumerate(widths):
            if width:
                sizes[i] += self.bin(_uniform(min(width, 8)))
        for i, width in enumerate(widths):
            if width > 8:
                sizes[i] += self.bin(_uniform(width - 8)) << 8
        return [size if number < 16 else -size for size, number in zip(sizes, classes, strict=True)]
