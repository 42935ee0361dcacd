"""Progress of a job: a live bar in a terminal, a line now and then elsewhere, and the summary at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from pipeline.addresses import without_password
from pipeline.attempts import Tally
from pipeline.driver import Progress, Summary
from pipeline.manifest import Plan
from pipeline.totals import RejectLimit, Totals

PLAIN_SECONDS = 10.0
BAR_WIDTH = 12
SHOWN_REASONS = 3
REASON_LENGTH = 150
_TRY_AGAIN = "delete their reports and run again to try them again"


@dataclass(frozen=True)
class Rates:
    """What a moment of a run looks like.

    `bits_per_pixel` is of the bitstreams that the run writes, None for a job that only reads some; `remaining` in
    seconds, None before there is anything to judge by.
    """

    shards_done: int
    shards: int
    images: int
    images_per_second: float
    megabytes_per_second: float
    bits_per_pixel: float | None
    rejects: int
    remaining: float | None

    @classmethod
    def at(cls, summary: Summary, plan: Plan, under_way: Tally, elapsed: float) -> Rates:
        """`under_way` counts into images, but not into bytes, which are known when a shard is done."""
        ours = summary.this_run
        elapsed = max(elapsed, 1e-3)
        left = plan.shards - summary.totals.shards - summary.unfinished
        return cls(
            shards_done=summary.totals.shards,
            shards=plan.shards,
            images=summary.totals.images + under_way.images,
            images_per_second=(ours.images + under_way.images) / elapsed,
            megabytes_per_second=ours.bytes_in / 1e6 / elapsed,
            bits_per_pixel=summary.totals.bits_per_pixel if plan.kind == "archive" else None,
            rejects=summary.totals.rejects + under_way.rejects,
            remaining=_remaining(summary, left, under_way, elapsed),
        )

    @property
    def short(self) -> str:
        """What matters most comes first, as a narrow terminal shows the beginning."""
        bits = "" if self.bits_per_pixel is None else f", {self.bits_per_pixel:.3f} bpp"
        return (
            f"{self._left}, {self.shards_done}/{self.shards} shards, {self.images_per_second:.1f} images/s, "
            f"{self.rejects} rejects{bits}"
        )

    @property
    def _left(self) -> str:
        return f"{'?' if self.remaining is None else duration(self.remaining)} left"

    def __str__(self) -> str:
        bits = "" if self.bits_per_pixel is None else f"{self.bits_per_pixel:.3f} bits per pixel, "
        return (
            f"{self.shards_done}/{self.shards} shards, {self.images} images, {self.images_per_second:.1f} images/s, "
            f"{self.megabytes_per_second:.1f} MB/s, {bits}{self.rejects} rejects, {self._left}"
        )


def _remaining(summary: Summary, left: int, under_way: Tally, elapsed: float) -> float | None:
    """Seconds for `left` shards: by samples, so that shards in work count as far as they are, with earlier runs' shards
    for their size; by shards where they hold no samples."""
    totals, ours = summary.totals, summary.this_run
    done = ours.images + ours.rejects + under_way.images + under_way.rejects
    if done and totals.shards:
        expected = left * (totals.images + totals.rejects) / totals.shards
        return elapsed / done * max(expected - under_way.images - under_way.rejects, 0)
    return elapsed / ours.shards * left if ours.shards else None


class PlainProgress:
    """A line every ten seconds and one at the end."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._plan = plan
        self._stream = stream
        self._start = self._shown = time.monotonic()

    def update(self, summary: Summary, under_way: Tally) -> None:
        now = time.monotonic()
        finished = summary.totals.shards + summary.unfinished == self._plan.shards
        if finished or now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            print(Rates.at(summary, self._plan, under_way, now - self._start), file=self._stream, flush=True)


class TerminalProgress:
    """A bar that is redrawn in place."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._plan = plan
        self._start = time.monotonic()
        self.bar = Bar(BarColumn(BAR_WIDTH), TextColumn("{task.description}"), console=Console(file=stream))
        self._task = self.bar.add_task("", total=plan.shards)

    def update(self, summary: Summary, under_way: Tally) -> None:
        rates = Rates.at(summary, self._plan, under_way, time.monotonic() - self._start)
        room = max(0, self.bar.console.width - BAR_WIDTH - 1)  # longer text would take the bar's place
        self.bar.update(self._task, completed=rates.shards_done, description=rates.short[:room])


@contextmanager
def open_progress(plan: Plan, stream: TextIO | None = None) -> Iterator[Progress]:
    """Progress of `plan` on `stream` (standard error): live where that is a terminal."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainProgress(plan, stream)
        return
    progress = TerminalProgress(plan, stream)
    with progress.bar:
        yield progress


def plan_line(plan: Plan, url: str) -> str:
    """What a run is going to do."""
    volume = size(sum(source.size for source in plan.pending))
    again = f", {len(plan.redo)} of them again" if plan.redo else ""
    others = f"; {plan.others} more there that are not among the inputs" if plan.others else ""
    return (
        f"{without_password(url)}: {plan.done.shards} shards done, {len(plan.pending)} to do ({volume}{again}){others}"
    )


def summary_lines(plan: Plan, summary: Summary, seconds: float) -> list[str]:
    """The end of a job for a person: what was done, what it came to, what is left."""
    totals, ours = summary.totals, summary.this_run
    passed_by = "skipped" if plan.kind == "archive" else "not asked for"
    lines = [
        f"shards      {totals.shards} done ({ours.shards} in this run, {duration(seconds)})",
        f"images      {totals.images} ({totals.rejects} rejected, {totals.skipped} {passed_by})",
        f"size        {_volume(totals, plan.kind)}",
    ]
    if plan.kind != "archive" and totals.skipped and not totals.images + totals.rejects:
        lines.append("where       no image matches --where")
    if ours.seconds:
        steps = ", ".join(f"{step} {share:.1f}" for step, share in ours.seconds.items())
        lines.append(f"seconds     {steps} (of all workers)")
    if totals.rejects:
        lines.append("rejects     with their bytes and the reason for each in rejects/")
        lines += [f"            {_short(reason)} ({count})" for reason, count in _commonest(ours)]
    if totals.failed_shards:
        lines.append(f"failed      {totals.failed_shards} shards rejected as a whole; reports/ say why, {_TRY_AGAIN}")
    if summary.unfinished:
        lines.append(f"unfinished  {summary.unfinished} shards; run again to resume ({summary.last_error})")
    return lines


def _commonest(totals: Totals) -> list[tuple[str, int]]:
    """The reasons for most rejects of a run, and how many had others."""
    common = Counter(totals.reasons).most_common(SHOWN_REASONS)
    others = totals.rejects - sum(count for _, count in common)
    return [*common, ("other reasons", others)] if common and others > 0 else common


def _short(reason: str) -> str:
    """Plain text, as standard output may be Latin-1 or less."""
    text = reason.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}..."


def exit_status(summary: Summary, limit: RejectLimit) -> int:
    """0, or 1 where shards are unfinished or more was rejected than `limit` allows, which standard error then says."""
    totals, exceeded = summary.totals, limit.exceeded(summary.totals)
    if exceeded and not totals.failed_shards:  # the summary has lines about failed and unfinished shards
        samples = totals.images + totals.rejects
        print(f"error: {totals.rejects} of {samples} rejected, more than --max-rejects {limit}", file=sys.stderr)
    return int(summary.unfinished > 0 or exceeded)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `5 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """Bytes in decimal units: `512 B`, `3.4 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def _volume(totals: Totals, kind: str) -> str:
    """What was read and written; how much smaller that is where bitstreams were made."""
    if kind != "archive":
        return f"{size(totals.bytes_in)} of bitstreams read, {size(totals.bytes_out)} written"
    sizes = f"{size(totals.bytes_in)} -> {size(totals.bytes_out)}"
    if not totals.bytes_out:
        return sizes
    return f"{sizes} ({totals.bytes_in / totals.bytes_out:.1f} : 1, {totals.bits_per_pixel:.3f} bits per pixel)"
