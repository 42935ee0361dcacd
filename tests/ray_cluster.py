"""A Ray cluster of one node as its users start it, `ray start --head`, apart from any other Ray of the machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.s3_server import free_port

REPOSITORY = Path(__file__).resolve().parents[1]
START_ATTEMPTS = 3
START_SECONDS = 300
SUBMIT_SECONDS = 900
"""Far more than a quiet machine needs. A job that hangs is still found, and its output shown."""

PORTS = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")


@dataclass(frozen=True)
class RayCluster:
    """A running cluster: where jobs are submitted to, and the environment in which `ray` belongs to it."""

    dashboard: str
    environment: dict[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir . -- entrypoint`, from the repository, with its output as text.

        Raises TimeoutError, with the output until then, for a job that does not end.
        """
        options = ["--address", self.dashboard, "--working-dir", "."]
        return _run("job", "submit", *options, "--", *entrypoint, environment=self.environment, seconds=SUBMIT_SECONDS)


@contextmanager
def running_cluster(cpus: int = 2) -> Iterator[RayCluster]:
    """`ray start --head` with ports and files of its own; its processes end with the block.

    Raises TimeoutError or RuntimeError where it does not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets there
    ports = [f"--{name}={free_port()}" for name in PORTS]
    dashboard = f"http://127.0.0.1:{free_port()}"
    options = [
        *ports,
        f"--num-cpus={cpus}",
        "--num-gpus=0",
        f"--temp-dir={directory}",
        f"--object-store-memory={200 << 20}",
    ]
    options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard.rpartition(':')[2]}"]
    environment = _environment(directory)
    try:
        _start(options, environment, directory)
        _wait_until_jobs_are_taken(dashboard)
        yield RayCluster(dashboard, environment)
    finally:
        _end(directory)
        shutil.rmtree(directory, ignore_errors=True)


def patiently(start: Callable[[], object], clean_up: Callable[[], object]) -> None:
    """Calls `start` until it succeeds, three times at most, with `clean_up` in between; raises its last error.

    Ray allows its own processes 30 s to come up and cannot be told otherwise, which a loaded machine may exceed.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            start()
            return
        except Exception:
            clean_up()
            if attempt == START_ATTEMPTS:
                raise


def _start(options: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
    def once() -> None:
        started = _run("start", "--head", *options, environment=environment, seconds=START_SECONDS)
        if started.returncode:
            raise RuntimeError(f"ray start ended with {started.returncode}:\n{started.stdout}")

    patiently(once, lambda: _end(directory))


def _run(*words: str, environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """`ray` with these words, from the repository; its output goes through a file, as Ray's processes inherit it."""
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "ray.scripts.scripts", *words]
        try:
            done = subprocess.run(
                command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"`ray {' '.join(words)}` did not end in {seconds} s:\n{_text(output)}") from error
        return subprocess.CompletedProcess(command, done.returncode, _text(output))


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _environment(directory: Path) -> dict[str, str]:
    """This process's, so that `python` is this Python and no other Ray is found or told of."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": str(directory),
        "TMPDIR": str(directory),  # what its jobs leave, killed ones too, goes with it
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_SECONDS),
        # Ray asks for a token once it has ever made one on a machine, but `ray job submit` sends it only if told to.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _wait_until_jobs_are_taken(dashboard: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # up, and asks for the token that `ray` sends
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise TimeoutError(f"Ray's dashboard does not answer at {dashboard}")


def _end(directory: Path) -> None:
    """End what was started with `directory` as its RAY_TMPDIR; `ray stop` would end every Ray of the machine."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        for process in _processes(directory):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        while _processes(directory) and time.monotonic() < deadline:
            time.sleep(0.2)


def _processes(directory: Path) -> list[int]:
    mark = f"RAY_TMPDIR={directory}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
