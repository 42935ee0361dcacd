"""From the evidence that each picture gives to one figure of the set.

A statistic is a function of the pictures' weights, `(N,)` non-negative numbers: ones for the set as it is, how often
each picture was drawn for a bootstrap. It returns None where the weighted pictures say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Weights: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Weights], float | None]
Family = Literal["fidelity", "distribution", "task"]


@dataclass(frozen=True)
class Metric:
    """A measure: its name in files, its title on axes, and how the evidence of pictures makes one figure.

    `family` decides what is done with it: BD-rates are for `fidelity` only. `original` names the evidence of the same
    measure on the undistorted pictures, where it is not perfect by definition. `note` is for the reader of a report.
    """

    name: str
    title: str
    combine: Callable[[Sequence[Any]], Statistic]
    family: Family = "fidelity"
    higher_is_better: bool = True
    original: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """What was found in both (`hits`), only in the decoded picture (`extra`), only in the original (`missed`)."""

    hits: int
    extra: int
    missed: int

    @classmethod
    def of_sets(cls, original: set[str], decoded: set[str]) -> Counts:
        """What two sets of names share."""
        return cls(len(original & decoded), len(decoded - original), len(original - decoded))


def mean(values: Sequence[float]) -> Statistic:
    """The mean over pictures."""
    array = np.asarray(values, np.float64)

    def statistic(weights: Weights) -> float | None:
        total = weights.sum()
        return float(weights @ array / total) if total > 0 else None

    return statistic


def f1(counts: Sequence[Counts]) -> Statistic:
    """Micro-averaged F1: 2 hits / (2 hits + extra + missed), each summed over the pictures first."""
    table = np.asarray([(one.hits, one.extra, one.missed) for one in counts], np.float64).reshape(-1, 3)

    def statistic(weights: Weights) -> float | None:
        hits, extra, missed = weights @ table
        found = 2 * hits + extra + missed
        return float(2 * hits / found) if found > 0 else None

    return statistic
