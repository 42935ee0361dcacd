"""Workers on a real local Ray: lost ones, broken ones, ones that cannot start."""

import io
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.actors import PoolSize, RayPool, pool_size
from pipeline.attempts import Tally, WorkerContext
from pipeline.commit import ShardCommit
from pipeline.driver import Summary, run
from pipeline.errors import JobError
from pipeline.manifest import Plan
from pipeline.records import ShardReport, ShardSource
from pipeline.storage import Storage
from pipeline.table import open_part
from tests.fakes import FINGERPRINT, Silence

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@dataclass(frozen=True)
class Fate:
    """What becomes of the worker: by the shard's name, and whether it is met for the first time."""

    output: Storage

    def __call__(self, context: WorkerContext) -> "FatedWorker":
        return FatedWorker(self.output, context)


@dataclass
class FatedWorker:
    output: Storage
    context: WorkerContext

    def process(self, source: ShardSource) -> ShardReport:
        with ShardCommit(self.output, source, FINGERPRINT) as commit:
            with commit.output(f"data/{commit.name}.bin") as file:
                file.write(b"half")
                self.meet(Path(source.url).stem)
                file.write(f" of {os.getpid()}".encode())
            self.context.tally.images += 10
            return commit.finish(ShardReport(source.url, source, FINGERPRINT, images=10))

    def meet(self, name: str) -> None:
        met = Path(self.output.url) / f"met-{name}"
        first = not met.exists()
        met.touch()
        if name == "deadly" or (name == "shaky" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "bad":
            raise ValueError("a bad shard")
        if name == "fault" and first:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


def plan(*names: str) -> Plan:
    return Plan(FINGERPRINT, [ShardSource(f"/in/{name}.tar", 1, "") for name in names])


@pytest.fixture
def output(tmp_path: Path) -> Storage:
    return Storage.from_url(str(tmp_path))


def test_lost_workers_are_replaced_and_their_shards_done_or_rejected(output: Storage) -> None:
    names = ("one", "shaky", "two", "deadly", "three", "bad", "four", "fault")
    summary = run(plan(*names), RayPool(Fate(output), PoolSize(2, cpus=1)), output, Silence())
    assert (summary.totals.shards, summary.totals.failed_shards, summary.unfinished) == (8, 2, 0)
    assert summary.totals.images == 60
    done = {path.split("/")[1].rsplit("-", 1)[0] for path in output.list("data")}
    assert done == set(names) - {"deadly", "bad"}
    errors = {}
    for path in output.list("rejects"):
        for row in open_part(io.BytesIO(output.read(path))).read().to_pylist():
            errors[Path(row["shard"]).stem] = row["error"]
    assert errors.keys() == {"deadly", "bad"}
    assert "the worker died" in errors["deadly"]
    assert "(3 times)" in errors["deadly"]
    assert errors["bad"] == "ValueError: a bad shard"


@dataclass(frozen=True)
class Unbuildable:
    dies: bool

    def __call__(self, context: WorkerContext) -> FatedWorker:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ModuleNotFoundError("no module named 'weights'")


@pytest.mark.parametrize(("dies", "message"), [(False, "no module named 'weights'"), (True, "die while they start")])
def test_workers_that_cannot_start_end_the_job(output: Storage, dies: bool, message: str) -> None:
    with pytest.raises(JobError, match=message):
        run(plan("one"), RayPool(Unbuildable(dies), PoolSize(1, cpus=1)), output, Silence())


@dataclass(frozen=True)
class OneOfTwo:
    """Starts in the first process that asks, as if the others had a GPU that has failed."""

    output: Storage

    def __call__(self, context: WorkerContext) -> FatedWorker:
        try:
            (Path(self.output.url) / "taken").touch(exist_ok=False)
        except FileExistsError:
            raise JobError("no usable GPU") from None
        return FatedWorker(self.output, context)


def test_a_worker_that_cannot_start_is_done_without(output: Storage, caplog: pytest.LogCaptureFixture) -> None:
    pool = RayPool(OneOfTwo(output), PoolSize(2, cpus=1))
    while pool.workers == 2:
        assert pool.wait(1.0) == []
    summary = run(plan("one", "two", "three"), pool, output, Silence())
    assert (summary.totals.images, summary.unfinished) == (30, 0)
    assert "1 are left: no usable GPU" in caplog.text


@dataclass(frozen=True)
class Environment:
    """Reports the threads a worker is given in place of images."""

    def __call__(self, context: WorkerContext) -> "Environment.Worker":
        import torch

        torch.set_num_threads(7)
        return Environment.Worker(context)

    @dataclass
    class Worker:
        context: WorkerContext

        def process(self, source: ShardSource) -> ShardReport:
            import torch

            assert self.context.device == "cpu"
            return ShardReport(source.url, source, FINGERPRINT, images=torch.get_num_threads())


def test_a_worker_keeps_to_its_share_of_the_cores(output: Storage) -> None:
    summary = run(plan("one"), RayPool(Environment(), PoolSize(1, cpus=2)), output, Silence())
    assert summary.totals.images == 2


@dataclass(frozen=True)
class Variables:
    """Fails in the words of the worker's environment."""

    def __call__(self, context: WorkerContext) -> FatedWorker:
        raise JobError(f"threads wait {os.environ.get('OMP_WAIT_POLICY')}")


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_leave_their_core_to_others(
    output: Storage, monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    with pytest.raises(JobError, match=f"threads wait {expected}"):
        run(plan("one"), RayPool(Variables(), PoolSize(1, cpus=1)), output, Silence())


def test_sizes_follow_the_cluster() -> None:
    assert pool_size("auto", 100) == PoolSize(1, 2, 0.0)
    assert pool_size(2, 100) == PoolSize(2, 1, 0.0)
    assert pool_size(50, 3) == PoolSize(3, 1, 0.0)


def test_progress_shows_within_a_shard(output: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.actors.TALLY_SECONDS", 0.0)
    seen = []

    class Watching(Silence):
        def update(self, summary: Summary, under_way: Tally) -> None:
            seen.append(under_way.images)
            if under_way.images:
                output_signal.write_bytes(b"seen")

    output_signal = Path(output.url) / "seen"
    run(plan("slow"), RayPool(Counting(output_signal), PoolSize(1, cpus=1)), output, Watching())
    assert max(seen) == 5


@dataclass(frozen=True)
class Counting:
    """Works until somebody has seen how far it is."""

    seen: Path

    def __call__(self, context: WorkerContext) -> "Counting.Worker":
        return Counting.Worker(self.seen, context)

    @dataclass
    class Worker:
        seen: Path
        context: WorkerContext

        def process(self, source: ShardSource) -> ShardReport:
            import time

            self.context.tally.images += 5
            for _ in range(600):
                if self.seen.exists():
                    break
                time.sleep(0.05)
            return ShardReport(source.url, source, FINGERPRINT, images=5)
