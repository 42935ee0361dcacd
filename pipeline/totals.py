"""What the reports of many shards add up to, and whether that is within the limit for rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pipeline.records import ShardReport

MOST_REASONS = 100
"""So many reasons for rejects are counted; where there are more, the rarest are forgotten."""


@dataclass(frozen=True)
class Totals:
    """Sums over shards; `failed_shards` were rejected as a whole. `seconds` is worker time per step.

    `reasons` counts reasons for rejects, as far as reports that were just made have them.
    """

    shards: int = 0
    failed_shards: int = 0
    images: int = 0
    rejects: int = 0
    skipped: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, report: ShardReport) -> Totals:
        return cls(
            shards=1,
            failed_shards=int(bool(report.error)),
            images=report.images,
            rejects=report.rejects,
            skipped=report.skipped,
            pixels=report.pixels,
            bytes_in=report.bytes_in,
            bytes_out=report.bytes_out,
            seconds=report.seconds,
            reasons=report.reasons,
        )

    def __add__(self, other: Totals) -> Totals:
        names = {each.name for each in fields(self)} - {"seconds", "reasons"}
        counts = {name: getattr(self, name) + getattr(other, name) for name in names}
        steps = [*self.seconds, *(step for step in other.seconds if step not in self.seconds)]
        seconds = {step: self.seconds.get(step, 0.0) + other.seconds.get(step, 0.0) for step in steps}
        reasons = (Counter(self.reasons) + Counter(other.reasons)).most_common(MOST_REASONS)
        return Totals(**counts, seconds=seconds, reasons=dict(reasons))

    @property
    def bits_per_pixel(self) -> float:
        """Stored bits per original pixel; 0 where there are no pixels."""
        return 8 * self.bytes_out / self.pixels if self.pixels else 0.0


@dataclass(frozen=True)
class RejectLimit:
    """How many rejects a job may have and still succeed: a count, or a fraction of all samples (`fraction=True`)."""

    value: float
    fraction: bool

    @classmethod
    def parse(cls, text: str) -> RejectLimit:
        """`"20"` is a count, `"0.01"` and `"1%"` are fractions; raises ValueError for anything else."""
        if text.isdigit():
            return cls(int(text), fraction=False)
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if not 0 <= value <= 1:
            raise ValueError(f"{text} is neither a count nor a fraction between 0 and 1")
        return cls(value, fraction=True)

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.fraction else f"{self.value:g}"

    def exceeded(self, totals: Totals) -> bool:
        """True where `totals` has more rejects than allowed, or any shard that was rejected as a whole."""
        allowed = self.value * (totals.images + totals.rejects) if self.fraction else self.value
        return totals.failed_shards > 0 or totals.rejects > allowed
