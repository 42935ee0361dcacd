"""Confidence intervals by the bootstrap: pictures are drawn again with replacement, the same draws for every codec.

Same draws make comparisons paired: a difference between codecs is not blurred by which pictures are hard. What the
intervals cover is the choice of pictures, not the choice of a training run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 400
LEVEL = 0.95
"""How often pictures are drawn anew, and the share of the draws that an interval holds."""

LEAST_SHARE = 0.95
"""Share of the draws in which a figure must exist for an interval to be given."""


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its confidence interval; `low` and `high` are None where there are too few draws."""

    value: float
    low: float | None
    high: float | None


def draws(pictures: int, count: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """`(1 + count, pictures)` weights: ones, then how often each picture came in each sample of `pictures` pictures.

    Of one picture there is one sample, itself, which tells nothing of others: the ones are then all.
    """
    if pictures < 2:
        return np.ones((1, pictures))
    random = np.random.default_rng(seed)
    drawn = random.multinomial(pictures, np.full(pictures, 1 / pictures), size=count)
    return np.concatenate((np.ones((1, pictures)), drawn))


def interval(values: Sequence[float | None]) -> Interval | None:
    """From a figure under each row of `draws`, the first of which is the set itself, to the figure and its percentiles.

    None where the set has no figure. One draw, or too few in which the figure exists, give no bounds.
    """
    value, drawn = values[0], [one for one in values[1:] if one is not None]
    if value is None:
        return None
    if len(drawn) < 2 or len(drawn) < LEAST_SHARE * (len(values) - 1):
        return Interval(value, None, None)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
