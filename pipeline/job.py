"""What all jobs share around their wiring: running a plan on Ray with progress, and errors as one line and a status.

    0   all well
    1   more rejects than allowed, or shards left unfinished
    2   wrong usage or configuration; the job did not start, or could not go on

`ray.init` is the job's own call, which it passes to `execute`: nothing here connects.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from pipeline.actors import RayPool, pool_size
from pipeline.attempts import WorkerFactory
from pipeline.driver import Summary, run
from pipeline.explanations import explain
from pipeline.manifest import Plan
from pipeline.progress import exit_status, open_progress, summary_lines
from pipeline.rejects import JobError, Verdict, decide, describe
from pipeline.storage import Storage
from pipeline.totals import RejectLimit, Totals

USAGE_ERROR = 2
INTERRUPTED = 130
Workers = int | Literal["auto"]

QUIET_RAY: Mapping[str, Any] = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "ignore_reinit_error": True,
}
"""Options of `ray.init` under which a job's own lines are all that a user sees."""


class RunRequest(Protocol):
    """What every job is asked for about how it runs."""

    @property
    def workers(self) -> Workers: ...
    @property
    def max_rejects(self) -> RejectLimit: ...


def storage_options(text: str) -> dict[str, Any]:
    """For argparse: a JSON object; raises ValueError for anything else."""
    options = json.loads(text)
    if not isinstance(options, dict):
        raise ValueError("not a JSON object")
    return options


def worker_count(text: str) -> Workers:
    """For argparse: `auto` or a number above 0; raises ValueError for anything else."""
    if text == "auto":
        return "auto"
    if (count := int(text)) < 1:
        raise ValueError("at least one worker is needed")
    return count


def execute(
    plan: Plan, factory: WorkerFactory, output: Storage, request: RunRequest, connect: Callable[[], object]
) -> int:
    """Does the pending shards of `plan` on the Ray that `connect` reaches, shows progress, prints the summary.

    Returns the exit status. Raises JobError where the job cannot go on.
    """
    start = time.monotonic()
    summary = Summary(plan.done, Totals())
    if plan.pending:
        _connect(connect)
        pool = RayPool(factory, pool_size(request.workers, len(plan.pending)))
        with open_progress(plan) as progress:
            summary = run(plan, pool, output, progress)
    print("\n".join(summary_lines(plan, summary, time.monotonic() - start)))
    return exit_status(summary, request.max_rejects)


def _connect(connect: Callable[[], object]) -> None:
    try:
        connect()
    except Exception as error:  # Ray raises bare exceptions, too, such as for a node that was slow to start
        raise JobError(f"Ray can be neither reached nor started: {describe(error)}") from error


def exit_code(job: Callable[[], int]) -> int:
    """What `job` returns; an error that a user can do something about becomes one line on standard error."""
    try:
        return job()
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; run again to resume", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if decide(error) is Verdict.REJECT:  # not a known kind of trouble: a defect, whose trace is wanted
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
    return USAGE_ERROR


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong with the store behind `url` into a JobError that says so in a user's words."""
    try:
        yield
    except JobError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise JobError(explain(error, url)) from error
    except Exception as error:
        if decide(error) is Verdict.REJECT:
            raise
        raise JobError(explain(error, url)) from error
