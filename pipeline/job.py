"""What all jobs share around their wiring: running a plan on Ray with progress, and errors as one line and a status.

    0   all well
    1   more rejects than allowed, or shards left unfinished
    2   wrong usage or configuration; the job did not start, or could not go on

`ray.init` is the job's own call, which it passes on: nothing here starts Ray by itself.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
import traceback
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from pipeline.actors import Device, RayPool, pool_size
from pipeline.addresses import redacted
from pipeline.attempts import Pool, WorkerFactory
from pipeline.driver import Summary, run
from pipeline.errors import JobError, Verdict, decide, describe
from pipeline.manifest import Plan
from pipeline.progress import exit_status, open_progress, summary_lines
from pipeline.storage import Storage
from pipeline.totals import RejectLimit, Totals

USAGE_ERROR = 2
INTERRUPTED = 130
Workers = int | Literal["auto"]
Value = TypeVar("Value")

EXIT_STATUS = """exit status
  0  all well
  1  too many rejects; or shards left over, which the next run takes up; or shards set aside as a whole, which count as
     done: to try one again, delete its file in reports/ (the file there says why) and run the job again
  2  wrong usage or configuration"""
"""For the help of jobs that go through shards."""

QUIET_RAY: Mapping[str, Any] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "ignore_reinit_error": True,
}
"""Options of `ray.init` under which a job's own lines are all that a user sees."""


class RunRequest(Protocol):
    """What a job that goes through shards is asked for about how it runs."""

    @property
    def workers(self) -> Workers: ...
    @property
    def device(self) -> Device: ...
    @property
    def max_rejects(self) -> RejectLimit: ...


@dataclass(frozen=True)
class RunOptions:
    """What is not stored: fsspec's options, which may hold credentials, and whether to say only what would be done.

    `cache` is where workers of a job that reads keep the archive's model, None for the user's own place.
    """

    storage: Mapping[str, Any]
    dry_run: bool
    cache: Path | None = None


def argument(parse: Callable[[str], Value], kind: str) -> Callable[[str], Value]:
    """For argparse: `parse`, whose ValueError becomes "'text' is not <kind>"."""

    def checked(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{text!r} is not {kind}") from error

    return checked


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """For argparse: a number from `least` to `most`, or without an upper limit."""

    def parse(text: str) -> int:
        if (number := int(text)) < least or (most is not None and number > most):
            raise ValueError(f"{number} is out of range")
        return number

    return argument(parse, f"a number from {least} {'on' if most is None else f'to {most}'}")


def storage_options(text: str) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    options = json.loads(text)
    if not isinstance(options, dict):
        raise ValueError("not a JSON object")
    return options


def worker_count(text: str) -> Workers:
    """`auto` or a number above 0; raises ValueError for anything else."""
    if text == "auto":
        return "auto"
    if (count := int(text)) < 1:
        raise ValueError("at least one worker is needed")
    return count


def add_run_arguments(parser: ArgumentParser, overwrite: str) -> None:
    """The arguments about how a job runs that goes through shards; `overwrite` says what that does again."""
    add = parser.add_argument
    workers = argument(worker_count, "auto or a number above 0")
    rejects = argument(RejectLimit.parse, "a count, or a fraction such as 0.01 or 1%")
    add("--workers", type=workers, default="auto", metavar="N", help="actors; auto: one per GPU or two cores")
    devices = "of the networks; auto: a GPU for each worker if the cluster has any (default: auto)"
    add("--device", choices=get_args(Device), default="auto", help=devices)
    add("--max-rejects", type=rejects, default="1%", metavar="LIMIT", help="20, 0.01 or 1%% (default: 1%%)")
    add("--overwrite", action="store_true", help=overwrite)
    add("--dry-run", action="store_true", help="say what would be done, write nothing")
    add_storage_options(parser)


def add_storage_options(parser: ArgumentParser) -> None:
    options = argument(storage_options, "a JSON object")
    described = "for fsspec, such as an endpoint; never stored"
    parser.add_argument("--storage-options", type=options, default={}, metavar="JSON", help=described)


@contextmanager
def started(
    plan: Plan, factory: WorkerFactory, request: RunRequest, connect: Callable[[], object]
) -> Iterator[Pool | None]:
    """Workers for what is pending in `plan`, on the Ray that `connect` reaches; None where nothing is.

    One at least is ready: an output is claimed within the block, so that a job whose workers cannot start, as with a
    model that does not load, leaves nothing that would refuse the next one. The workers end with the block.

    Raises JobError where no worker starts; within the block SIGTERM is a KeyboardInterrupt.
    """
    if not plan.pending:
        yield None
        return
    connect_ray(connect)
    size = pool_size(request.workers, len(plan.pending), request.device)
    print("starting workers", file=sys.stderr, flush=True)
    with _interrupted_by_sigterm(), closing(RayPool(factory, size)) as pool:
        while not pool.free:
            pool.wait(1.0)
        yield pool


def execute(plan: Plan, pool: Pool | None, output: Storage, request: RunRequest) -> int:
    """Does the pending shards of `plan` in `pool`, which `started` gave, shows progress, prints the summary.

    Returns the exit status. Raises JobError where the job cannot go on.
    """
    begin = time.monotonic()
    summary = Summary(plan.done, Totals())
    if pool is not None:
        with open_progress(plan) as progress:
            summary = run(plan, pool, output, progress)
    print("\n".join(summary_lines(plan, summary, time.monotonic() - begin)))
    return exit_status(summary, request.max_rejects)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """As by Ctrl-C: Ray, once connected, would answer SIGTERM with a trace of its own."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def connect_ray(connect: Callable[[], object]) -> None:
    """Calls the job's own `ray.init`; raises JobError where that fails, in whatever way."""
    try:
        connect()
    except Exception as error:  # Ray raises bare exceptions, too, such as for a node that was slow to start
        raise JobError(f"Ray can be neither reached nor started: {describe(error)}") from error


def exit_code(job: Callable[[], int]) -> int:
    """What `job` returns; an error that a user can do something about becomes one line on standard error."""
    try:
        return job()
    except JobError as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; run again to resume", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if decide(error) is Verdict.REJECT:  # not a known kind of trouble: a defect, whose trace is wanted
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
    return USAGE_ERROR


def plain_exit_code(job: Callable[[], int]) -> int:
    """`exit_code` for jobs on files of this machine, where OSError and ValueError are about what the user gave."""

    def checked() -> int:
        try:
            return job()
        except OSError as error:
            named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise JobError(named) from error
        except ValueError as error:
            raise JobError(str(error) or describe(error)) from error

    return exit_code(checked)
