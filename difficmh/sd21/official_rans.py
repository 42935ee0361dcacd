"""The entropy coder of official streams: compressai's rANS with its own tables and escape code, in plain Python.

compressai's C++ coder reads beyond the end of a damaged string and follows escape codes of any length; around our own
streams it is fenced in (`range_coder.py`), which its escape code does not allow. Here every word is checked before it
is read, and the coder's final state tells an intact string from a damaged one. About a microsecond per symbol, which
beside a diffusion step does not count.

The state is a 64-bit integer, at least 2**31 between symbols; it takes in and gives out words of 32 bits. Tables have
16 bits. Symbols are encoded last to first, so that they decode first to last.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from difficmh.cdf_tables import PRECISION, TOTAL
from difficmh.errors import BitstreamError

LOWEST_STATE = 1 << 31
STATE_LIMIT = 1 << 63
WORD = 32
ROOM_BITS = 31 + WORD - PRECISION
"""A bin of n counts of 65536 is added to states below n * 2**ROOM_BITS, which keeps them below STATE_LIMIT."""

ESCAPE_BITS = 4
DIGIT_MASK = (1 << ESCAPE_BITS) - 1
DIGIT_SHARE = TOTAL >> ESCAPE_BITS
MAX_ESCAPE_DIGITS = 7
"""An escaped value has at most 28 bits: compressai's encoder never ends on longer ones."""


@dataclass(frozen=True, eq=False)
class OfficialTables:
    """Cumulative counts of several probability tables in compressai's layout, all integers, int32.

    `cdfs` `(tables, width)`: rows that rise from 0 to 65536, padded with zeros; `lengths` `(tables,)` the used entries
    of each; `offsets` `(tables,)` first values. The last bin of each table is the escape bin, for values outside.
    Raises ValueError for arrays that are no such tables.
    """

    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.cdfs)
        shapes = (self.cdfs.ndim, self.lengths.shape, self.offsets.shape)
        if count == 0 or shapes != (2, (count,), (count,)):
            raise ValueError("tables need a row, a length and an offset each, and there must be at least one")
        if self.lengths.min() < 3 or self.lengths.max() > self.cdfs.shape[1]:
            raise ValueError("a table has at least one value and an escape bin, and fits its row")
        for row in self.rows:
            if row[0] != 0 or row[-1] != TOTAL or (np.diff(row) < 1).any():
                raise ValueError(f"a table must rise from 0 to {TOTAL}")

    @cached_property
    def rows(self) -> list[list[int]]:
        """The used entries of each table."""
        return [row[:length].tolist() for row, length in zip(self.cdfs, self.lengths, strict=True)]

    @cached_property
    def first_values(self) -> list[int]:
        return [int(offset) for offset in self.offsets]


def encode_official(symbols: Sequence[int], indexes: Sequence[int], tables: OfficialTables) -> bytes:
    """The string of `symbols`, each coded with the table of the same place in `indexes`: at least 8 bytes.

    Raises ValueError for a symbol further outside its table than 27 bits.
    """
    steps: list[tuple[int, int]] = []  # start and count of a bin, or an escape's digit and 0
    for symbol, index in zip(symbols, indexes, strict=True):
        _append_symbol(steps, symbol - tables.first_values[index], tables.rows[index])
    state, words = LOWEST_STATE, []
    for start, count in reversed(steps):
        if state >= (count or DIGIT_SHARE) << ROOM_BITS:
            words.append(state & 0xFFFFFFFF)
            state >>= WORD
        state = (state // count << PRECISION) + state % count + start if count else state << ESCAPE_BITS | start
    words += [state >> WORD, state & 0xFFFFFFFF]
    return struct.pack(f"<{len(words)}I", *reversed(words))


def _append_symbol(steps: list[tuple[int, int]], value: int, cdf: list[int]) -> None:
    escape = len(cdf) - 2
    if 0 <= value < escape:
        steps.append((cdf[value], cdf[value + 1] - cdf[value]))
        return
    steps.append((cdf[escape], cdf[escape + 1] - cdf[escape]))
    rest = -2 * value - 1 if value < 0 else 2 * (value - escape)
    digits = (rest.bit_length() + ESCAPE_BITS - 1) // ESCAPE_BITS
    if digits > MAX_ESCAPE_DIGITS:
        raise ValueError("a symbol lies too far outside its table to be escaped")
    # The number of digits is a digit itself: compressai's code for numbers of 15 and more is never needed.
    steps.append((digits, 0))
    steps += [(rest >> ESCAPE_BITS * place & DIGIT_MASK, 0) for place in range(digits)]


class OfficialDecoder:
    """Reads the symbols of a string in order. Raises BitstreamError, here or later, for bytes that hold none."""

    def __init__(self, string: bytes) -> None:
        if len(string) < 8 or len(string) % 4:
            raise BitstreamError(f"damaged: {len(string)} bytes of coded symbols are too few or not whole words")
        low, high, *words = struct.unpack(f"<{len(string) // 4}I", string)
        self._state = high << WORD | low
        self._words = iter(words)
        if not LOWEST_STATE <= self._state < STATE_LIMIT:
            raise BitstreamError("damaged: the coded symbols are not a stream of this coder")

    def pull(self, indexes: Iterable[int], tables: OfficialTables) -> list[int]:
        """The next symbols, one for each of `indexes`, coded with the tables that these name."""
        rows, first_values = tables.rows, tables.first_values
        state, symbols = self._state, []
        for index in indexes:
            cdf = rows[index]
            low = state & 0xFFFF
            number = bisect_right(cdf, low) - 1
            start = cdf[number]
            state = (cdf[number + 1] - start) * (state >> PRECISION) + low - start
            if state < LOWEST_STATE:
                state = state << WORD | self._word()
            if number == len(cdf) - 2:
                self._state = state
                number = self._escaped(number)
                state = self._state
            symbols.append(first_values[index] + number)
        self._state = state
        return symbols

    def finish(self) -> None:
        """Raises BitstreamError unless the string ends exactly after the symbols that were pulled."""
        if self._state != LOWEST_STATE or next(self._words, None) is not None:
            raise BitstreamError("damaged: the coded symbols do not end where they should")

    def _word(self) -> int:
        word = next(self._words, None)
        if word is None:
            raise BitstreamError("damaged: the coded symbols end too early")
        return word

    def _digit(self) -> int:
        digit = self._state & DIGIT_MASK
        self._state >>= ESCAPE_BITS
        if self._state < LOWEST_STATE:
            self._state = self._state << WORD | self._word()
        return digit

    def _escaped(self, escape: int) -> int:
        digits = self._digit()
        if digits > MAX_ESCAPE_DIGITS:
            raise BitstreamError("damaged: an escaped symbol has more than 28 bits")
        rest = sum(self._digit() << ESCAPE_BITS * place for place in range(digits))
        return -(rest + 1) // 2 if rest & 1 else rest // 2 + escape
