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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.s3_server import free_port

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 90.0
PORTS = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")


@dataclass(frozen=True)
class RayCluster:
    """A running cluster: where jobs are submitted to, and the environment in which `ray` belongs to it."""

    dashboard: str
    environment: dict[str, str]

    def submit(self, *entrypoint: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir . -- entrypoint`, from the repository, with its output as text."""
        command = [*_ray(), "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", *entrypoint]
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )


@contextmanager
def running_cluster(cpus: int = 2) -> Iterator[RayCluster]:
    """`ray start --head` with ports and files of its own; its processes end with the block.

    Raises TimeoutError or CalledProcessError where it does not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets there
    ports = [f"--{name}={free_port()}" for name in PORTS]
    dashboard = f"http://127.0.0.1:{free_port()}"
    options = [*ports, f"--num-cpus={cpus}", f"--temp-dir={directory}", f"--object-store-memory={200 << 20}"]
    options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard.rpartition(':')[2]}"]
    environment = _environment(directory)
    try:
        subprocess.run(
            [*_ray(), "start", "--head", *options], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=180
        )
        _wait_until_jobs_are_taken(dashboard)
        yield RayCluster(dashboard, environment)
    finally:
        _end(directory)
        shutil.rmtree(directory, ignore_errors=True)


def _ray() -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts"]


def _environment(directory: Path) -> dict[str, str]:
    """This process's, so that `python` is this Python and no other Ray is found or told of."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": str(directory),
        "RAY_USAGE_STATS_ENABLED": "0",
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
