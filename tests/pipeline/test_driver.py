"""The driver's decisions, on a pool that answers as it is told, and its bounds on many shards."""

import io
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.attempts import Outcome, Tally, Task, WorkerContext, attempt
from pipeline.commit import ShardCommit
from pipeline.driver import ATTEMPTS, Summary, run
from pipeline.errors import JobError, TransientError, Verdict
from pipeline.manifest import Plan
from pipeline.records import ShardReport, ShardSource
from pipeline.storage import Storage
from pipeline.table import open_part
from tests.fakes import FINGERPRINT, LocalPool

Answer = Callable[[Task], Outcome]


def plan(count: int) -> Plan:
    return Plan(FINGERPRINT, [ShardSource(f"/in/{number}.tar", 1, "") for number in range(count)])


def done(task: Task) -> Outcome:
    report = ShardReport(task.source.url, task.source, FINGERPRINT, images=10, bytes_in=1000, seconds={"read": 0.5})
    return Outcome(task, report=report)


class FakePool:
    """Answers each task by `answer`, `workers` at a time."""

    def __init__(self, answer: Answer, workers: int = 2) -> None:
        self.answer = answer
        self.workers = workers
        self.waiting: list[Task] = []
        self.attempts: Counter[str] = Counter()
        self.closed = False

    @property
    def free(self) -> int:
        return self.workers - len(self.waiting)

    @property
    def under_way(self) -> Tally:
        return Tally(len(self.waiting))

    def submit(self, task: Task) -> None:
        assert self.free
        self.waiting.append(task)
        self.attempts[task.source.url] += 1

    def wait(self, seconds: float) -> list[Outcome]:
        return [self.answer(self.waiting.pop(0))] if self.waiting else []

    def close(self) -> None:
        self.closed = True


class Silent:
    def __init__(self) -> None:
        self.last: Summary | None = None
        self.updates = 0

    def update(self, summary: Summary, under_way: Tally) -> None:
        self.last = summary
        self.updates += 1


@pytest.fixture
def output(tmp_path: Path) -> Storage:
    return Storage.from_url(str(tmp_path))


def only(number: int, outcome: Answer) -> Answer:
    """`outcome` for one shard, success for all others."""
    return lambda task: outcome(task) if task.source.url == f"/in/{number}.tar" else done(task)


def test_reports_add_up(output: Storage) -> None:
    pool, progress = FakePool(done), Silent()
    summary = run(plan(5), pool, output, progress)
    assert (summary.totals.shards, summary.totals.images, summary.totals.seconds) == (5, 50, {"read": 2.5})
    assert summary == progress.last
    assert progress.updates >= 5
    assert pool.closed
    assert output.list() == [], "workers write, the driver does not"


def test_earlier_runs_count_into_totals_only(output: Storage) -> None:
    first = run(plan(3), FakePool(done), output, Silent())
    resumed = Plan(FINGERPRINT, plan(2).pending, first.totals)
    summary = run(resumed, FakePool(done), output, Silent())
    assert (summary.totals.shards, summary.this_run.shards) == (5, 2)


def test_a_lost_shard_gets_other_attempts(output: Storage) -> None:
    def lost_at_first(task: Task) -> Outcome:
        return Outcome(task, error="the worker died", lost=True) if task.attempt < ATTEMPTS else done(task)

    pool = FakePool(only(1, lost_at_first))
    summary = run(plan(4), pool, output, Silent())
    assert pool.attempts["/in/1.tar"] == ATTEMPTS
    assert (summary.totals.shards, summary.totals.failed_shards) == (4, 0)


def test_a_shard_that_kills_its_worker_is_rejected_as_a_whole(output: Storage) -> None:
    pool = FakePool(only(1, lambda task: Outcome(task, error="the worker died", lost=True)))
    summary = run(plan(4), pool, output, Silent())
    assert pool.attempts == {f"/in/{number}.tar": ATTEMPTS if number == 1 else 1 for number in range(4)}
    assert (summary.totals.shards, summary.totals.failed_shards, summary.unfinished) == (4, 1, 0)
    (rejects,) = output.list("rejects")
    (row,) = open_part(io.BytesIO(output.read(rejects))).read().to_pylist()
    assert (row["shard"], row["stage"], row["error"]) == ("/in/1.tar", "shard", "the worker died (3 times)")
    assert len(output.list("reports")) == 1


def test_a_shard_that_another_job_did_meanwhile_is_done(output: Storage) -> None:
    def lost(task: Task) -> Outcome:
        with ShardCommit(output, task.source, FINGERPRINT) as commit:
            commit.finish(ShardReport(task.source.url, task.source, FINGERPRINT, images=10))
        return Outcome(task, error="the worker died", lost=True)

    summary = run(plan(4), FakePool(only(1, lost)), output, Silent())
    assert (summary.totals.shards, summary.totals.failed_shards, summary.totals.images) == (4, 0, 40)
    assert output.list("rejects") == []


def test_a_shard_the_store_does_not_give_is_left_for_another_run(output: Storage) -> None:
    pool = FakePool(only(1, lambda task: Outcome(task, verdict=Verdict.RETRY, error="slow")))
    summary = run(plan(4), pool, output, Silent())
    assert pool.attempts["/in/1.tar"] == ATTEMPTS
    assert (summary.totals.shards, summary.unfinished, summary.last_error) == (3, 1, "slow")
    assert output.list() == []


def test_a_bad_shard_is_rejected_at_once(output: Storage) -> None:
    pool = FakePool(only(1, lambda task: Outcome(task, verdict=Verdict.REJECT, error="bad")))
    summary = run(plan(4), pool, output, Silent())
    assert pool.attempts["/in/1.tar"] == 1
    assert summary.totals.failed_shards == 1


def test_what_cannot_get_better_ends_the_job(output: Storage) -> None:
    pool = FakePool(only(1, lambda task: Outcome(task, verdict=Verdict.ABORT, error="access denied")))
    with pytest.raises(JobError, match=r"1\.tar: access denied"):
        run(plan(4), pool, output, Silent())
    assert pool.closed


def test_a_job_where_everything_fails_ends_early(output: Storage) -> None:
    pool = FakePool(lambda task: Outcome(task, verdict=Verdict.REJECT, error="bad"))
    with pytest.raises(JobError, match="one after the other"):
        run(plan(1000), pool, output, Silent())
    assert sum(pool.attempts.values()) < 20


def test_an_end_tells_how_shards_are_tried_again(output: Storage) -> None:
    pool = FakePool(lambda task: Outcome(task, verdict=Verdict.REJECT, error="bad"))
    with pytest.raises(JobError, match=r"(\d+) shards count as done: delete their reports") as caught:
        run(plan(1000), pool, output, Silent())
    assert f" {len(output.list('reports'))} shards count" in str(caught.value)


def test_scattered_failures_do_not_end_the_job(output: Storage) -> None:
    def every_other(task: Task) -> Outcome:
        odd = int(Path(task.source.url).stem) % 2
        return Outcome(task, verdict=Verdict.RETRY, error="slow") if odd else done(task)

    summary = run(plan(40), FakePool(every_other), output, Silent())
    assert (summary.totals.shards, summary.unfinished) == (20, 20)


def test_many_shards_take_no_memory_of_their_own(output: Storage) -> None:
    many = plan(20_000)
    tracemalloc.start()
    summary = run(many, FakePool(done, workers=64), output, Silent())
    grown = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.totals.shards == 20_000
    assert grown < 8_000_000, "only the queue of tasks, no report and no reference is kept"


class Worker:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def process(self, source: ShardSource) -> ShardReport:
        if self.error is not None:
            raise self.error
        return ShardReport(source.url, source, FINGERPRINT, images=1)


@pytest.mark.parametrize(
    ("error", "verdict", "lost"),
    [
        (TransientError("x"), Verdict.RETRY, False),
        (ValueError("x"), Verdict.REJECT, False),
        (JobError("x"), Verdict.ABORT, False),
        (RuntimeError("CUDA error: x"), Verdict.REPLACE, True),
    ],
)
def test_an_error_in_a_worker_is_an_outcome(error: Exception, verdict: Verdict, lost: bool) -> None:
    task = Task(ShardSource("/in/0.tar", 1, ""))
    outcome = attempt(Worker(error), task)
    assert (outcome.report, outcome.verdict, outcome.lost) == (None, verdict, lost)
    assert "x" in outcome.error


def test_the_local_pool_builds_a_worker_once_and_anew_when_it_broke(output: Storage) -> None:
    built = []

    def factory(context: WorkerContext) -> Worker:
        built.append(context.device)
        return Worker(RuntimeError("CUDA error: fault") if len(built) == 1 else None)

    summary = run(plan(3), LocalPool(factory), output, Silent())
    assert (summary.totals.shards, built) == (3, ["cpu", "cpu"])


def test_a_worker_that_cannot_be_built_ends_the_job(output: Storage) -> None:
    def factory(context: WorkerContext) -> Worker:
        raise FileNotFoundError("weights")

    with pytest.raises(JobError, match="could not be started: FileNotFoundError: weights"):
        run(plan(3), LocalPool(factory), output, Silent())
