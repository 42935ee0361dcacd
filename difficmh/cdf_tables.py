"""Integer probability tables for the entropy coder: what they are, and how they are made once, at export.

Tables are stored with the weights as integers and never recomputed from floating point at load: two machines that round
differently would read different symbols from the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRECISION = 16
TOTAL = 1 << PRECISION
"""Counts of a table: a bin with n of them has the probability n / 65536."""

RESERVED_BINS = 2
"""Bins of a table that are no values: the escape, and a last one that nothing uses."""

MAX_BINS = 1 << 13
INT16 = np.iinfo(np.int16)

SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)
"""Scale index k stands for a Gaussian of standard deviation SCALE_MIN * exp(k * SCALE_STEP) quantisation steps."""

GAUSSIAN_SCALES: tuple[float, ...] = tuple(
    math.exp(x) for x in np.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), SCALES)
)
"""The standard deviations of the Gaussian tables, ascending, equally spaced in the logarithm."""

GAUSSIAN_TAIL, GAUSSIAN_REACH = 1e-6, 2048
"""Probability on both sides together that a Gaussian table leaves to its escape, and how far it reaches at most."""

PARTS = ("cdfs", "lengths", "offsets")
"""The arrays of tables, by which capsules name them."""


@dataclass(frozen=True, eq=False)
class CdfTables:
    """Cumulative counts of several probability tables, checked when built.

    `cdfs` `(sum of lengths,)` int32 holds the tables one after the other, `lengths` `(tables,)` int32 their entries
    and `offsets` `(tables,)` int32 their first values. A table of n + 3 entries rises strictly from 0 to 65536 and has
    n + 2 bins: the values offset … offset + n - 1, one *escape* bin for all other values, and one bin of a single count
    that nothing uses (compressai would start its own escape code there, whose reads cannot be bounded).

    Raises ValueError for arrays that are no such tables.
    """

    cdfs: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name in PARTS:
            object.__setattr__(self, name, _frozen_int32(getattr(self, name), name))
        if len(self.lengths) == 0 or len(self.lengths) != len(self.offsets):
            raise ValueError("tables need one length and one offset each, and there must be at least one table")
        if self.lengths.min() < RESERVED_BINS + 2 or self.lengths.max() > MAX_BINS + 1:
            raise ValueError(f"a table has {RESERVED_BINS + 1} to {MAX_BINS} bins")
        if int(self.lengths.sum(dtype=np.int64)) != len(self.cdfs):
            raise ValueError("the lengths of the tables do not add up to their entries")
        self._check_counts()
        last = self.offsets.astype(np.int64) + self.sizes - 1
        if self.offsets.min() < INT16.min or last.max() > INT16.max:
            raise ValueError("a table holds values outside the 16-bit range")

    def _check_counts(self) -> None:
        ends = self.starts + self.lengths - 1
        if self.cdfs[self.starts].any() or (self.cdfs[ends] != TOTAL).any() or (self.cdfs[ends - 1] != TOTAL - 1).any():
            raise ValueError(f"a table must start at 0 and end with {TOTAL - 1}, {TOTAL}")
        steps = np.diff(self.cdfs, append=1)
        steps[ends] = 1
        if steps.min() < 1:
            raise ValueError("a table does not rise strictly")

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """`(tables,)` int64: where each table starts in `cdfs`."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    @cached_property
    def sizes(self) -> NDArray[np.int32]:
        """`(tables,)` int32: how many values each table holds, which is also the number of its escape bin."""
        return (self.lengths - RESERVED_BINS - 1).astype(np.int32)

    @cached_property
    def bits(self) -> NDArray[np.float32]:
        """`(sum of lengths,)` float32: what the bin that starts at an entry of `cdfs` costs, in bits."""
        steps = np.diff(self.cdfs, append=1)
        bits: NDArray[np.float64] = PRECISION - np.log2(np.maximum(steps, 1))
        return bits.astype(np.float32)

    @cached_property
    def counts(self) -> list[NDArray[np.int32]]:
        """Per table: how many of the 65536 counts each value has, then those of the escape bin and of the last."""
        return [np.diff(part) for part in np.split(self.cdfs, self.starts[1:])]

    @cached_property
    def cdf_lists(self) -> list[list[int]]:
        """The tables as compressai wants them, converted once."""
        return [part.tolist() for part in np.split(self.cdfs, self.starts[1:])]

    @cached_property
    def length_list(self) -> list[int]:
        """`lengths`, for the same purpose."""
        return [int(length) for length in self.lengths]


def _frozen_int32(array: NDArray[np.int32], name: str) -> NDArray[np.int32]:
    array = np.asarray(array)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be a one-dimensional integer array, not {array.dtype} with shape {array.shape}")
    copy = array.astype(np.int32)
    if (copy != array).any():
        raise ValueError(f"{name} holds numbers beyond 32 bits")
    copy.setflags(write=False)
    return copy


def tables_from_counts(counts: Sequence[Sequence[int]], offsets: Sequence[int]) -> CdfTables:
    """One table per list of counts (values in order, then the escape bin), which must be positive and sum to 65535."""
    cdfs = [np.concatenate(([0], np.cumsum(part, dtype=np.int64), [TOTAL])) for part in counts]
    lengths = np.array([len(cdf) for cdf in cdfs], np.int32)
    return CdfTables(np.concatenate(cdfs), lengths, np.asarray(offsets, np.int32))


def tables_from_pmf(pmfs: Sequence[NDArray[np.floating[Any]]], offsets: Sequence[int]) -> CdfTables:
    """One table per list of probabilities, with the fewest extra bits that 16-bit counts allow.

    `pmfs[i][j]` is the probability of the value `offsets[i] + j`; what is missing to 1 goes to the escape bin. Raises
    ValueError for probabilities that are negative, not finite, empty, or sum to more than 1.
    """
    return tables_from_counts([_counts_from_pmf(np.asarray(pmf, np.float64)).tolist() for pmf in pmfs], offsets)


def _counts_from_pmf(pmf: NDArray[np.float64]) -> NDArray[np.int64]:
    if pmf.ndim != 1 or not 0 < len(pmf) <= MAX_BINS - RESERVED_BINS:
        raise ValueError(f"a table takes 1 to {MAX_BINS - RESERVED_BINS} probabilities")
    if not np.isfinite(pmf).all() or pmf.min() < 0 or pmf.sum() > 1 + 1e-6:
        raise ValueError("probabilities must be finite, not negative, and sum to at most 1")
    shares = np.append(pmf, max(0.0, 1.0 - float(pmf.sum()))) / max(1.0, float(pmf.sum()))
    # Every bin needs one count; the bins worth more share the rest in proportion, which may drop further ones to one.
    total = TOTAL - 1
    rare = np.zeros(len(shares), bool)
    while True:
        ideal = shares * ((total - rare.sum()) / shares[~rare].sum())
        if not (fallen := ~rare & (ideal < 1)).any():
            break
        rare |= fallen
    ideal[rare] = 1
    counts: NDArray[np.int64] = np.floor(ideal).astype(np.int64)
    order = np.argsort(counts - ideal, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def gaussian_tables(scales: Sequence[float] = GAUSSIAN_SCALES) -> CdfTables:
    """One table per standard deviation: a Gaussian around 0, integrated over the unit interval around each integer.

    A table reaches as far as leaves the probability `GAUSSIAN_TAIL` to the escape bin, at least to ±1 and at most to
    ±`GAUSSIAN_REACH`.
    """
    reaches = [_reach(scale) for scale in scales]
    return tables_from_pmf(
        [_gaussian(s, reach) for s, reach in zip(scales, reaches, strict=True)], [-r for r in reaches]
    )


def _upper_tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2.0))


def _reach(scale: float) -> int:
    reach = 1
    while reach < GAUSSIAN_REACH and 2 * _upper_tail((reach + 0.5) / scale) > GAUSSIAN_TAIL:
        reach += 1
    return reach


def _gaussian(scale: float, reach: int) -> NDArray[np.float64]:
    # Differences of upper tails keep their precision far out, where the distribution function is 1 minus rounding.
    half = [_upper_tail((k - 0.5) / scale) - _upper_tail((k + 0.5) / scale) for k in range(1, reach + 1)]
    return np.array([*half[::-1], 1 - 2 * _upper_tail(0.5 / scale), *half])
