"""The shared fixtures themselves: what other tests rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tests.ray_cluster import _environment, patiently
from tests.s3_server import Bucket


@pytest.mark.s3
def test_bucket_is_fresh_and_reached_through_environment_and_options(s3: Bucket) -> None:
    assert s3.keys() == []
    url = s3.put("a/b.bin", b"content")
    assert fsspec.open(url).open().read() == b"content"
    assert fsspec.open(url, **s3.storage_options).open().read() == b"content"
    assert s3.keys() == ["a/b.bin"]
    assert s3.get("a/b.bin") == b"content"


@pytest.mark.s3
def test_faulty_proxy_injects_what_it_is_told(s3: Bucket, faulty_s3: Callable[..., dict[str, object]]) -> None:
    url = s3.put("long.bin", bytes(100_000))
    options = faulty_s3("--shorten", "1")
    with fsspec.open(url, **options) as file:
        assert 0 < len(file.read()) < 100_000


@pytest.mark.ray
def test_ray_workers_import_the_repository_and_know_the_server(ray_local: None) -> None:
    import ray

    @ray.remote
    def probe() -> tuple[str, str]:
        import pipeline.records

        return pipeline.records.__file__, os.environ["AWS_ENDPOINT_URL"]

    path, endpoint = ray.get(probe.remote())
    assert Path(path) == Path(__file__).parents[1] / "pipeline" / "records.py"
    assert endpoint == os.environ["AWS_ENDPOINT_URL"]


def test_ray_is_started_again_where_it_did_not_come_up() -> None:
    steps = []

    def start() -> None:
        steps.append("start")
        if steps.count("start") < 3:
            raise RuntimeError("timed out during startup")

    patiently(start, lambda: steps.append("clean up"))
    assert steps == ["start", "clean up", "start", "clean up", "start"]


def test_ray_that_never_comes_up_is_an_error() -> None:
    steps = []

    def start() -> None:
        raise RuntimeError("no such option")

    with pytest.raises(RuntimeError, match="no such option"):
        patiently(start, lambda: steps.append("clean up"))
    assert steps == ["clean up"] * 3


def test_what_the_jobs_of_a_cluster_leave_lies_in_its_folder(tmp_path: Path) -> None:
    ask = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
    answer = subprocess.run(ask, env=_environment(tmp_path), capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == str(tmp_path)


def test_corpus_has_two_shards_with_distinct_keys(corpus: Path) -> None:
    names = []
    for path in sorted(corpus.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert len(names) == len(set(names)) == 18
