"""Errors as one line and a status, and what jobs parse."""

import json
import os
import signal
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.actors import Device, PoolSize
from pipeline.attempts import WorkerContext
from pipeline.errors import JobError
from pipeline.job import (
    Workers,
    execute,
    exit_code,
    plain_exit_code,
    started,
    storage_options,
    whole_number,
    worker_count,
)
from pipeline.manifest import Plan
from pipeline.records import ShardReport, ShardSource
from pipeline.storage import Storage
from pipeline.totals import RejectLimit, Totals
from tests.fakes import LocalPool

NO_REJECTS = RejectLimit(0, fraction=False)


@dataclass(frozen=True)
class Request:
    workers: Workers = 1
    device: Device = "auto"
    max_rejects: RejectLimit = NO_REJECTS


class OneRejected:
    """A worker that rejects one image of two in every shard."""

    def __init__(self, context: WorkerContext) -> None: ...

    def process(self, source: ShardSource) -> ShardReport:
        return ShardReport(source.url, source, "f", images=1, rejects=1)


PLAN = Plan("f", [ShardSource("/in/0.tar", 1, "")])
OUTPUT = Storage.from_url("/nowhere")


def executed(plan: Plan, request: Request, connect: Callable[[], object], worker: Any = OneRejected) -> int:
    with started(plan, worker, request, connect) as pool:
        return execute(plan, pool, OUTPUT, request)


def test_a_plan_is_done_and_summed_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    monkeypatch.setattr("pipeline.job.pool_size", lambda *wanted: sizes.append(wanted) or PoolSize(1, 1.0))
    monkeypatch.setattr("pipeline.job.RayPool", lambda factory, size: LocalPool(factory))
    connected = []
    status = executed(PLAN, Request(workers=3, device="cpu"), lambda: connected.append(True))
    assert (status, connected, sizes) == (1, [True], [(3, 1, "cpu")])
    shown = capsys.readouterr()
    assert "images      1 (1 rejected, 0 skipped)" in shown.out
    assert "1/1 shards" in shown.err
    lenient = Request(max_rejects=RejectLimit(1, fraction=False))
    assert executed(PLAN, lenient, lambda: None) == 0


def test_nothing_to_do_needs_no_ray(capsys: pytest.CaptureFixture[str]) -> None:
    def connect() -> None:
        raise AssertionError("not needed")

    assert executed(Plan("f", [], Totals(shards=2)), Request(), connect) == 0
    assert "2 done (0 in this run" in capsys.readouterr().out


def test_ray_that_does_not_come_up_is_one_line() -> None:
    def connect() -> None:
        raise Exception("The current node timed out during startup.")

    with pytest.raises(JobError, match=r"Ray can be neither reached nor started: .*timed out during startup"):
        executed(PLAN, Request(), connect)


class Closing(LocalPool):
    """Tells when it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_workers_end_where_an_output_cannot_be_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    monkeypatch.setattr("pipeline.job.pool_size", lambda *wanted: PoolSize(1, 1.0))
    monkeypatch.setattr("pipeline.job.RayPool", lambda factory, size: pools.append(Closing(factory)) or pools[-1])

    def claim() -> None:
        with started(PLAN, OneRejected, Request(), lambda: None) as pool:
            assert pool.free == 1, "one is ready by now"
            raise JobError("taken")

    with pytest.raises(JobError, match="taken"):
        claim()
    assert pools[0].closed


class Terminated(OneRejected):
    """A worker during whose work somebody ends the job, as a scheduler does."""

    def process(self, source: ShardSource) -> ShardReport:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().process(source)


def test_sigterm_interrupts_and_a_run_resumes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.job.pool_size", lambda *wanted: PoolSize(1, 1.0))
    monkeypatch.setattr("pipeline.job.RayPool", lambda factory, size: LocalPool(factory))
    rays: list[int] = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        status = exit_code(
            lambda: executed(
                PLAN, Request(), lambda: signal.signal(signal.SIGTERM, lambda *_: rays.append(1)), Terminated
            )
        )
        assert (status, rays) == (130, [])
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted; run again to resume"
        os.kill(os.getpid(), signal.SIGTERM)
        assert rays == [1], "afterwards it is Ray's again"
    finally:
        signal.signal(signal.SIGTERM, before)


def raising(error: BaseException) -> int:
    raise error


def test_a_status_is_passed_on() -> None:
    assert exit_code(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (JobError("no such codec"), 2, "error: no such codec"),
        (PermissionError("access denied"), 2, "error: PermissionError: access denied"),
        (TimeoutError("slow"), 2, "error: TimeoutError: slow"),
        (KeyboardInterrupt(), 130, "interrupted; run again to resume"),
    ],
)
def test_a_users_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    assert exit_code(lambda: raising(error)) == status
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_defect_shows_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(AttributeError("oops"))) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "here/a.pt"), "error: here/a.pt: No such file or directory"),
        (ValueError("too few pictures"), "error: too few pictures"),
        (ValueError(), "error: ValueError"),
        (JobError("as it is"), "error: as it is"),
    ],
)
def test_what_is_wrong_with_a_users_files_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    assert plain_exit_code(lambda: raising(error)) == 2
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_defect_shows_its_trace_there_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain_exit_code(lambda: raising(KeyError("oops"))) == 2
    assert "Traceback" in capsys.readouterr().err


def test_storage_options_are_a_json_object() -> None:
    assert storage_options(json.dumps({"key": "a"})) == {"key": "a"}
    for text in ("[]", "x", ""):
        with pytest.raises((ValueError, ArgumentTypeError)):
            storage_options(text)


def test_whole_numbers_within_bounds() -> None:
    assert whole_number(1)("16") == 16
    assert [whole_number(1, 100)(text) for text in ("1", "100")] == [1, 100]
    for parse, text, wanted in ((whole_number(1), "0", "1 on"), (whole_number(1, 9), "10", "1 to 9")):
        with pytest.raises(ArgumentTypeError, match=f"'{text}' is not a number from {wanted}"):
            parse(text)
    with pytest.raises(ArgumentTypeError, match="'many' is not a number"):
        whole_number(1)("many")


def test_worker_counts() -> None:
    assert worker_count("auto") == "auto"
    assert worker_count("8") == 8
    for text in ("0", "-1", "many"):
        with pytest.raises(ValueError):  # noqa: PT011 - argparse shows its own message
            worker_count(text)
