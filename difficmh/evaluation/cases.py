"""Which pictures to look at, the worst first, and each codec's crop at about the same bits per pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from difficmh.evaluation.fidelity import MS_SSIM, SSIMULACRA2
from difficmh.evaluation.measure import Measurement
from difficmh.evaluation.statistics import Metric
from difficmh.evaluation.summary import figures_at
from difficmh.rate_distortion import Point

MOST_CASES = 24


@dataclass(frozen=True)
class Shown:
    """A codec's crop, as a WebP file, and what was measured of the whole picture at that quality."""

    codec: str
    quality: int
    bits_per_pixel: float
    scores: dict[str, float]
    crop: bytes


@dataclass(frozen=True)
class Case:
    """One picture. `deficit` is by how much the codec under test falls short of the best other one at equal rates.

    None where they cannot be compared: the codec under test, or every other, does not reach the rate.
    """

    image: str
    deficit: float | None
    original: bytes
    shown: list[Shown]


def judging_metric(measurements: Sequence[Measurement]) -> Metric:
    """What decides which case is worst: SSIMULACRA 2 where it was measured, else MS-SSIM."""
    measured = all(SSIMULACRA2.name in one.evidence for one in measurements)
    return SSIMULACRA2 if measured else MS_SSIM


def worst_cases(measurements: Sequence[Measurement], rate: float, most: int = MOST_CASES) -> list[Case]:
    """Cases by falling deficit of the first codec at `rate` bits per pixel, at most so many.

    With one codec the deficit is what its score lacks, so that the worst picture still comes first. Pictures in which
    the first codec, or every other, does not reach the rate are not compared and come last; those without a crop of
    any codec are left out.
    """
    pictures: dict[str, list[Measurement]] = {}
    for one in measurements:
        pictures.setdefault(one.image, []).append(one)
    metric = judging_metric(measurements)
    cases = [case for image, group in pictures.items() if (case := _case(image, group, metric, rate)) is not None]
    cases.sort(key=lambda case: -math.inf if case.deficit is None else case.deficit, reverse=True)
    return cases[:most]


def _case(image: str, group: Sequence[Measurement], metric: Metric, rate: float) -> Case | None:
    by_codec: dict[str, list[Measurement]] = {}
    for one in group:
        by_codec.setdefault(one.codec, []).append(one)
    shown = [found for each in by_codec.values() if (found := _shown(each, rate)) is not None]
    original = next((one.original_crop for one in group if one.original_crop is not None), None)
    if not shown or original is None:
        return None
    return Case(image, _deficit([_value_at(each, metric, rate) for each in by_codec.values()]), original, shown)


def _shown(group: Sequence[Measurement], rate: float) -> Shown | None:
    """The crop whose rate is nearest, by ratio."""
    kept = [one for one in group if one.crop is not None]
    if not kept:
        return None
    best = min(kept, key=lambda one: abs(math.log(one.bits_per_pixel / rate)))
    assert best.crop is not None
    scores = {name: value for name, value in best.evidence.items() if isinstance(value, float)}
    return Shown(best.codec, best.quality, best.bits_per_pixel, scores, best.crop)


def _value_at(group: Sequence[Measurement], metric: Metric, rate: float) -> float | None:
    points = [Point(one.bits_per_pixel, one.evidence[metric.name]) for one in group]
    (value,) = figures_at(metric, points, [rate])
    return value


def _deficit(values: Sequence[float | None]) -> float | None:
    """Of the first value against the largest of the others."""
    tested, *others = values
    if tested is None:
        return None
    if not others:
        return -tested
    reached = [value for value in others if value is not None]
    return max(reached) - tested if reached else None
