"""An S3 server for tests, and a proxy before it that injects faults.

The server is the real object store of the shared material (`../shared/s3`) where that is present and starts, otherwise
moto's mock. Both listen on 127.0.0.1 and end with the test session.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SHARED_S3 = Path(__file__).resolve().parents[2] / "shared" / "s3"
KEY, SECRET = "test:tester", "testing-secret"
POWERLESS_KEY, POWERLESS_SECRET = "test:nobody", "nobody-secret"


class ServerUnavailable(Exception):
    """No S3 server can be started here; the message says why."""


@dataclass(frozen=True)
class S3Server:
    """A running server; `kind` says whether it is a real store (checks signatures and rights) or a mock."""

    port: int
    kind: Literal["real", "mock"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_options(self) -> dict[str, Any]:
        """For fsspec, without any cache of instances or listings."""
        return client_options(self.endpoint)

    def client(self) -> Any:
        import botocore.session  # here, as tests of networks alone run on GPU machines without it

        session = botocore.session.get_session()
        return session.create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def new_bucket(self) -> Bucket:
        name = f"test-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=name)
        return Bucket(self, name)


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for one test. `AWS_*` variables of the environment lead to its server."""

    server: S3Server
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    @property
    def storage_options(self) -> dict[str, Any]:
        return self.server.storage_options

    def put(self, key: str, content: bytes) -> str:
        """Store an object; its URL."""
        self.server.client().put_object(Bucket=self.name, Key=key, Body=content)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        body: bytes = self.server.client().get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))


def client_options(endpoint: str) -> dict[str, Any]:
    """fsspec options for an endpoint: short time-outs, and no cache that would outlive a test."""
    return {
        "endpoint_url": endpoint,
        "key": KEY,
        "secret": SECRET,
        "skip_instance_cache": True,
        "use_listings_cache": False,
        "config_kwargs": {"read_timeout": 5, "connect_timeout": 5},
    }


def environment(port: int, nowhere: Path) -> dict[str, str]:
    """Variables that lead every AWS client to the server at `port`, and to no configuration of the user's own."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(nowhere / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(nowhere / "aws-credentials"),
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running_server(data: Path, port: int) -> Iterator[S3Server]:
    """A server with its data under `data`; raises `ServerUnavailable` where neither kind starts."""
    script = SHARED_S3 / "start-s3"
    command = [sys.executable, str(script)]
    if script.exists() and _succeeds([*command, "start", str(data), "--port", str(port)]):
        try:
            yield S3Server(port, "real")
        finally:
            subprocess.run([*command, "stop", str(data)], check=True, capture_output=True)
        return
    with _running_mock(port) as server:
        yield server


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def _running_mock(port: int) -> Iterator[S3Server]:
    try:
        import moto.server  # noqa: F401
    except ImportError as error:
        raise ServerUnavailable(f"no ../shared/s3 that starts, and no moto[server]: {error}") from error
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield S3Server(port, "mock")
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise ServerUnavailable(f"{process.args!r} did not come up")


@contextmanager
def faulty_proxy(server: S3Server, *faults: str) -> Iterator[str]:
    """Endpoint of a proxy before `server` with the faults given as on its command line (`"--shorten", "0.5"`)."""
    script = SHARED_S3 / "faulty-proxy"
    if not script.exists():
        raise ServerUnavailable("the faulty proxy is in ../shared/s3, which is absent here")
    port = free_port()
    command = [sys.executable, str(script), "--listen", str(port), "--upstream", f"127.0.0.1:{server.port}", *faults]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
