"""Fixtures that tests of several packages share: an S3 server, a faulty proxy before it, a local Ray, small corpora."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from tests import corpora, processes, ray_cluster, s3_server, termination

REPOSITORY = Path(__file__).resolve().parents[1]

# Machines that run the tests may be slow and shared: no example is judged by its time.
settings.register_profile("difficmh", deadline=None, max_examples=50)
settings.load_profile("difficmh")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ray's start, which the first test that needs it waits for, is not that test's time; it has limits of its own."""
    for item in items:
        if item.get_closest_marker("ray") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300, func_only=True))
    if hasattr(config, "workerinput"):  # one of several processes
        processes.longest_first(items)


def pytest_sessionstart() -> None:
    termination.end_by_sigterm()


def pytest_runtest_call() -> None:
    termination.end_by_sigterm()  # again: a Ray that has been started puts an answer of its own there


@pytest.fixture(scope="session")
def process_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Variables for this process and those it starts, Ray's workers included; the port kept for the S3 server.

    Ray's workers keep the environment that Ray was started in, so the server's address must be known before either
    one starts.
    """
    port = s3_server.free_port()
    variables = s3_server.environment(port, tmp_path_factory.mktemp("aws"))
    variables |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield port


@pytest.fixture(scope="session")
def s3_service(process_environment: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    """The S3 server of the session; tests without one are skipped with the reason."""
    with ExitStack() as stack:
        try:
            data = tmp_path_factory.mktemp("s3")
            server = stack.enter_context(s3_server.running_server(data, process_environment))
        except s3_server.ServerUnavailable as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def s3(s3_service: s3_server.S3Server) -> s3_server.Bucket:
    """A fresh bucket: `.url`, `.storage_options`, `.put(key, bytes)`, `.get(key)`, `.keys(prefix)`."""
    return s3_service.new_bucket()


@pytest.fixture
def faulty_s3(s3_service: s3_server.S3Server) -> Iterator[Callable[..., dict[str, object]]]:
    """`faulty_s3("--shorten", "1", …)` starts a faulty proxy and gives fsspec options that lead through it."""
    with ExitStack() as stack:

        def start(*faults: str) -> dict[str, object]:
            try:
                endpoint = stack.enter_context(s3_server.faulty_proxy(s3_service, *faults))
            except s3_server.ServerUnavailable as error:
                pytest.skip(str(error))
            return s3_server.client_options(endpoint)

        yield start


@pytest.fixture(scope="session")
def ray_local(process_environment: int) -> Iterator[None]:
    """A Ray of two CPUs, and of no GPU, inside this session, with the repository on its workers' path."""
    import ray

    # Ray puts sockets there, whose paths may not be long.
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    start = partial(
        ray.init,
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        _temp_dir=directory,
        _node_ip_address="127.0.0.1",
    )
    try:
        ray_cluster.patiently(start, clean_up=ray.shutdown)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A directory of two shards of three images each."""
    directory = tmp_path / "corpus"
    corpora.write_corpus(directory)
    return directory


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """For tests with networks: small ones are slower on several threads, much slower where others compute too."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
