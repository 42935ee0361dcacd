"""Runs a plan on a pool of workers: keeps them busy, gives lost shards another attempt, adds up the reports.

The driver holds the shard list and sums, nothing per image.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.attempts import Outcome, Pool, Tally, Task
from pipeline.commit import set_aside
from pipeline.errors import JobError, Verdict
from pipeline.manifest import Plan
from pipeline.storage import Storage
from pipeline.totals import Totals

log = logging.getLogger(__name__)

ATTEMPTS = 3
FAILURES_IN_A_ROW = 3
"""That many whole shards failing, per worker and without a success between them, is no bad shard but a bad job."""


@dataclass(frozen=True)
class Summary:
    """A run's end: totals with what earlier runs did, this run's own, and how many shards are left for another run."""

    totals: Totals
    this_run: Totals
    unfinished: int = 0
    last_error: str = ""


class Progress(Protocol):
    """Shown while a job runs."""

    def update(self, summary: Summary, under_way: Tally) -> None:
        """Called at every turn of the driver, about once a second; `under_way` is how far the shards in work are."""
        ...


@dataclass
class _Run:
    plan: Plan
    pool: Pool
    output: Storage
    queue: deque[Task]
    this_run: Totals = field(default_factory=Totals)
    running: int = 0
    unfinished: int = 0
    failures_in_a_row: int = 0
    last_error: str = ""

    def step(self) -> None:
        """Fills free workers, waits a moment, settles what came back."""
        while self.queue and self.pool.free:
            self.pool.submit(self.queue.popleft())
            self.running += 1
        for outcome in self.pool.wait(1.0):
            self.running -= 1
            self.settle(outcome)

    def settle(self, outcome: Outcome) -> None:
        if outcome.report is not None:
            self.failures_in_a_row = 0
            self.this_run += Totals.of(outcome.report)
            return
        self.last_error = outcome.error
        if outcome.verdict is Verdict.ABORT:
            raise JobError(f"{outcome.task.source.url}: {outcome.error}")
        if (outcome.lost or outcome.verdict is Verdict.RETRY) and outcome.task.attempt < ATTEMPTS:
            log.warning("%s: attempt %d: %s", outcome.task.source.url, outcome.task.attempt, outcome.error)
            # At the front: failures that gathered at the end of the queue would look like a job where all fails.
            self.queue.appendleft(replace(outcome.task, attempt=outcome.task.attempt + 1))
            return
        self.give_up(outcome)

    def give_up(self, outcome: Outcome) -> None:
        """Rejects the shard as a whole, unless it is done after all, or leaves it for the next run where only the store
        failed.
        """
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= FAILURES_IN_A_ROW * self.pool.workers:
            aside = self.this_run.failed_shards
            again = f"; {aside} shards count as done: delete their reports to try them again" if aside else ""
            raise JobError(
                f"{self.failures_in_a_row} shards failed one after the other, the last: {outcome.error}{again}"
            )
        if outcome.verdict is Verdict.RETRY and not outcome.lost:
            self.unfinished += 1
            return
        times = f" ({outcome.task.attempt} times)" if outcome.task.attempt > 1 else ""
        report = set_aside(self.output, outcome.task.source, self.plan.fingerprint, outcome.error + times)
        self.this_run += Totals.of(report)

    @property
    def summary(self) -> Summary:
        return Summary(self.plan.done + self.this_run, self.this_run, self.unfinished, self.last_error)


def run(plan: Plan, pool: Pool, output: Storage, progress: Progress) -> Summary:
    """Does the pending shards of `plan` and closes `pool`.

    Raises JobError where going on is pointless; what was done until then is kept, and another run resumes.
    """
    state = _Run(plan, pool, output, deque(Task(source) for source in plan.pending))
    try:
        while state.queue or state.running:
            progress.update(state.summary, pool.under_way)
            state.step()
        progress.update(state.summary, Tally())
        return state.summary
    finally:
        pool.close()
