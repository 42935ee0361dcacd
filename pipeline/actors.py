"""Workers on Ray: plain actors, one shard at a time each, pinned to one GPU where the cluster has GPUs.

Ray restarts nothing by itself here: a lost actor comes back to the driver as an outcome, which decides about the shard.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from pipeline.attempts import Outcome, ShardWorker, Tally, Task, WorkerContext, WorkerFactory, attempt, build
from pipeline.errors import JobError, describe
from pipeline.lanes import limit_threads

log = logging.getLogger(__name__)

START_ATTEMPTS = 3
TALLY_SECONDS = 2.0
CORES_PER_WORKER = 2
MOST_CORES_PER_GPU = 8


@dataclass(frozen=True)
class PoolSize:
    """How many actors, and the share of a machine each one asks Ray for."""

    workers: int
    cpus: float
    gpus: float = 0.0

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


Device = Literal["auto", "cpu", "cuda"]
"""Where networks run: `auto` is a GPU per worker in a cluster that has any."""


def pool_size(workers: int | Literal["auto"], shards: int, device: Device = "auto") -> PoolSize:
    """A size that fits the connected cluster: one worker per GPU, or one per two cores; never more than shards.

    More workers than GPUs share them. Workers get as many cores as still let all of them find a machine: Ray would
    look for one without end. Raises JobError where GPUs are asked for and there are none, for the same reason.
    """
    machines = _machines(device)
    gpus = sum(gpus for _, gpus in machines)
    wanted = workers if workers != "auto" else gpus or _fitting(machines, CORES_PER_WORKER) or len(machines)
    count = max(1, min(wanted, shards))
    if gpus:
        sharing = -(-count // gpus)
        # That of the machine with the fewest cores for each GPU: asking for more would leave its GPUs idle.
        share = min(MOST_CORES_PER_GPU, *(cpus // gpus or cpus / gpus for cpus, gpus in machines)) / sharing
        return PoolSize(count, int(share) or share, 1 / sharing)
    widest = max((cpus for cpus, _ in machines), default=1)
    return PoolSize(count, next((share for share in range(widest, 1, -1) if _fitting(machines, share) >= count), 1))


def _fitting(machines: Sequence[tuple[int, int]], share: int) -> int:
    """How many workers of `share` cores find room; no worker's cores are those of two machines."""
    return sum(cpus // share for cpus, _ in machines)


def _machines(device: Device) -> list[tuple[int, int]]:
    """Cores and GPUs of each machine that can hold a worker: those with a GPU, where there are any to be used."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    sizes = [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in resources]
    with_cores = [size for size in sizes if size[0]]
    if device == "cpu":
        return [(cores, 0) for cores, _ in with_cores]
    with_gpus = [size for size in with_cores if size[1]]
    if device == "cuda" and not with_gpus:
        raise JobError("--device cuda: the cluster has no machine with a GPU and cores that are free for workers")
    return with_gpus or with_cores


class ShardActor:
    """Holds one worker in a process of its own. `tally` is answered while a shard is in work (two threads)."""

    def __init__(self, factory: WorkerFactory, size: PoolSize) -> None:
        self._factory = factory
        self._context = WorkerContext(size.device, size.threads)
        self._worker: ShardWorker | None = None
        self._before = Tally()

    def start(self) -> str:
        """Builds the worker; returns what went wrong, as an error in a constructor looks like a lost actor."""
        try:
            self._worker = build(self._factory, self._context)
        except JobError as error:
            return str(error)
        return ""

    def process(self, task: Task) -> Outcome:
        assert self._worker is not None, "start comes first"
        limit_threads(self._context.threads)
        self._before = replace(self._context.tally)
        return attempt(self._worker, task)

    def tally(self) -> Tally:
        """What was done of the shard in work."""
        now = self._context.tally
        return Tally(now.images - self._before.images, now.rejects - self._before.rejects)


class RayPool:
    """Actors of one size. Each is started once and replaced when it dies.

    One that does not start, as on a GPU that has failed, is done without as long as there are others.
    """

    def __init__(self, factory: WorkerFactory, size: PoolSize) -> None:
        self._factory = factory
        self._size = size
        self._workers = size.workers
        self._class = ray.remote(ShardActor).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
            runtime_env={"env_vars": _thread_variables()},
        )
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task | None]] = {}
        self._tallies = _Tallies()
        self._failed_starts = 0
        for _ in range(size.workers):
            self._spawn()

    @property
    def free(self) -> int:
        return len(self._idle)

    @property
    def workers(self) -> int:
        return self._workers

    @property
    def under_way(self) -> Tally:
        return self._tallies.poll([actor for actor, task in self._busy.values() if task is not None])

    def submit(self, task: Task) -> None:
        actor = self._idle.pop()
        self._busy[actor.process.remote(task)] = (actor, task)

    def wait(self, seconds: float) -> list[Outcome]:
        if not self._busy:
            return []
        ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=seconds)
        outcomes = (self._collect(reference) for reference in ready)
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
        self._idle.clear()
        self._busy.clear()

    def _spawn(self) -> None:
        actor: Any = self._class.remote(self._factory, self._size)
        self._busy[actor.start.remote()] = (actor, None)

    def _collect(self, reference: Any) -> Outcome | None:
        """What came of a task; None for a start."""
        actor, task = self._busy.pop(reference)
        try:
            result = ray.get(reference)
        except RayError as error:
            self._spawn()
            if task is None:
                self._count_failed_start(error)
                return None
            return Outcome(task, error=f"the worker died: {describe(error)}", lost=True)
        if task is None:
            self._admit(actor, result)
            return None
        outcome: Outcome = result
        if outcome.lost:
            ray.kill(actor)
            self._spawn()
        else:
            self._idle.append(actor)
        return outcome

    def _admit(self, actor: Any, reason: str) -> None:
        """Takes in an actor that has started, or does without one that has not, for this `reason`."""
        self._failed_starts = 0
        if not reason:
            self._idle.append(actor)
            return
        ray.kill(actor)
        self._workers -= 1
        if not self._workers:
            raise JobError(reason)
        log.warning("a worker did not start, %d are left: %s", self._workers, reason)

    def _count_failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        if self._failed_starts >= START_ATTEMPTS:
            raise JobError(f"workers die while they start: {describe(error)}") from error


class _Tallies:
    """Asks busy actors how far they are, now and then and without waiting for the answers."""

    def __init__(self) -> None:
        self._asked_at = 0.0
        self._asked: list[Any] = []
        self._sum = Tally()

    def poll(self, actors: list[Any]) -> Tally:
        """The latest sum over all busy actors; starts the next question when it is time."""
        now = time.monotonic()
        if now - self._asked_at < TALLY_SECONDS:
            return self._sum
        answers = ray.wait(self._asked, num_returns=len(self._asked), timeout=0)[0] if self._asked else []
        tallies = [tally for answer in answers if (tally := _answer(answer)) is not None]
        self._sum = Tally(sum(tally.images for tally in tallies), sum(tally.rejects for tally in tallies))
        self._asked = [actor.tally.remote() for actor in actors]
        self._asked_at = now
        return self._sum


def _answer(reference: Any) -> Tally | None:
    try:
        tally: Tally = ray.get(reference)
    except RayError:
        return None
    return tally


def _thread_variables() -> dict[str, str]:
    """Has OpenMP's idle threads sleep, not spin, unless the user wants it otherwise.

    By default they spin for a while after each of torch's operations, on cores that JPEG threads and Ray's own
    processes need. OpenMP reads this once, when a process loads it, so it has to be in the actor's environment.
    """
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
