"""One attempt at one shard: what a worker is, what a pool of them does, and what may come of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pipeline.errors import JobError, Verdict, decide, describe, in_words
from pipeline.memory_watch import MemoryWatch
from pipeline.records import ShardReport, ShardSource

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What a worker has done since it started; it counts while it works, so that progress shows within a shard."""

    images: int = 0
    rejects: int = 0


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker runs: device `"cpu"` or `"cuda"`, the processor threads that are its share; and what it counts."""

    device: str = "cpu"
    threads: int = 1
    tally: Tally = field(default_factory=Tally)
    memory: MemoryWatch = field(default_factory=MemoryWatch)


class ShardWorker(Protocol):
    """Does one kind of job (compress, decode, analyze) to whole shards, one after the other."""

    def process(self, source: ShardSource) -> ShardReport:
        """Works through `source` and commits it, the same in every attempt. Raises what `errors.decide` judges."""
        ...


WorkerFactory: TypeAlias = Callable[[WorkerContext], ShardWorker]
"""Picklable; called once in the process that runs the worker, loads what the worker needs. Raises JobError."""


@dataclass(frozen=True)
class Task:
    """A shard to do, and which attempt at it this is, from 1."""

    source: ShardSource
    attempt: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a report, or an error and the verdict on it. `lost`: the worker went down with the task."""

    task: Task
    report: ShardReport | None = None
    verdict: Verdict | None = None
    error: str = ""
    lost: bool = False


class Pool(Protocol):
    """Workers that take one task each. The driver fills free ones and waits for outcomes."""

    @property
    def free(self) -> int:
        """Workers that could take a task now."""
        ...

    @property
    def workers(self) -> int:
        """Workers there are or will be."""
        ...

    @property
    def under_way(self) -> Tally:
        """About how far the shards in work are, added up."""
        ...

    def submit(self, task: Task) -> None:
        """Gives `task` to a free worker."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcomes since the last call, waiting at most `seconds` for one.

        Raises JobError where workers cannot be started.
        """
        ...

    def close(self) -> None:
        """Ends all workers, with what they are doing."""
        ...


def attempt(worker: ShardWorker, task: Task) -> Outcome:
    """Runs `task`; an error becomes an outcome, so that the worker lives on."""
    try:
        return Outcome(task, report=worker.process(task.source))
    except Exception as error:
        log.warning("%s: attempt %d failed", task.source.url, task.attempt, exc_info=True)
        verdict = decide(error)
        return Outcome(task, verdict=verdict, error=describe(error), lost=verdict is Verdict.REPLACE)


def build(factory: WorkerFactory, context: WorkerContext) -> ShardWorker:
    """A worker; raises JobError with one line in place of whatever the factory raised."""
    try:
        return factory(context)
    except JobError:
        raise
    except Exception as error:
        log.debug("a worker could not be started", exc_info=True)
        raise JobError(f"a worker could not be started: {in_words(error)}") from error
