"""The main job as users run it: `ray start --head`, then `ray job submit`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import difficmh
from difficmh.capsule import BUILT_IN, write_manifest
from difficmh.vocabulary import Vocabulary
from pipeline.storage import Storage
from tests.corpora import shard_bytes
from tests.difficmh.tiny_capsule import CONFIG, make_tiny_capsule
from tests.ray_cluster import SUBMIT_SECONDS, RayCluster, running_cluster
from tests.s3_server import Bucket

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(SUBMIT_SECONDS + 60, func_only=True)]


@pytest.fixture(scope="module")
def cluster(process_environment: int) -> Iterator[RayCluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def small_codec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a codec with tiny networks and the tagger of `lite`."""
    tags = len(Vocabulary.load(BUILT_IN / "lite" / "tags.json").tags)
    config = replace(CONFIG, denoiser=replace(CONFIG.denoiser, vocabulary_size=tags))
    capsule = make_tiny_capsule(tmp_path_factory.mktemp("small"), config=config)
    for name in ("tags.json", "tagger.safetensors"):
        shutil.copyfile(BUILT_IN / "lite" / name, capsule / name)
    write_manifest(capsule)
    return str(capsule)


def compress(cluster: RayCluster, shards: str, archive: str, codec: str, *options: str) -> str:
    """The output of the submitted job, which has to succeed."""
    command = ["python", "jobs/compress_dataset.py", "--input", shards, "--archive", archive]
    job = cluster.submit(*command, "--codec", codec, "--quality", "3", *options)
    assert job.returncode == 0, job.stdout
    return job.stdout


def rows(archive: str, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    storage = Storage.from_url(archive, options)
    parts = [pq.read_table(pa.BufferReader(storage.read(path))) for path in storage.list("data")]
    return sorted((row for part in parts for row in part.to_pylist()), key=lambda row: row["key"])


@pytest.mark.skipif("lite" not in difficmh.capsule_names(), reason="this checkout has no weights of lite")
def test_local_corpus_is_compressed_with_lite(cluster: RayCluster, corpus: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    assert "succeeded" in compress(cluster, str(corpus), str(archive), "lite")
    archived = rows(str(archive))
    assert [row["key"] for row in archived] == [f"{index:06d}" for index in range(6)]
    assert {row["camera"] for row in archived} == {"cam-0", "cam-1", "cam-2"}
    fingerprint = difficmh.capsule_fingerprint(difficmh.capsule_path("lite"))
    for row in archived:
        info = difficmh.inspect(row["bitstream"])
        assert (info.height, info.width, info.fingerprint) == (24, 32, fingerprint[:8])
        assert (row["height"], row["width"]) == (24, 32)
    assert len(list((archive / "reports").glob("*.json"))) == 2
    assert (archive / "capsule" / "manifest.json").is_file()


@pytest.mark.s3
def test_shards_on_s3_become_an_archive_on_s3(cluster: RayCluster, s3: Bucket, small_codec: str) -> None:
    for shard in range(2):
        s3.put(f"corpus/cam-{shard:06d}.tar", shard_bytes(2, start=2 * shard))
    inputs, archive = f"{s3.url}/corpus/cam-{{000000..000001}}.tar", f"{s3.url}/archive"
    compress(cluster, inputs, archive, small_codec, "--workers", "1")
    archived = rows(archive, s3.storage_options)
    assert [row["key"] for row in archived] == [f"{index:06d}" for index in range(4)]
    assert [row["shard"] for row in archived[::2]] == [f"{s3.url}/corpus/cam-{shard:06d}.tar" for shard in range(2)]


def test_wrong_input_fails_the_job_with_one_line(cluster: RayCluster, tmp_path: Path, small_codec: str) -> None:
    command = ["python", "jobs/compress_dataset.py", "--input", f"{tmp_path}/none.tar", "--archive", f"{tmp_path}/a"]
    job = cluster.submit(*command, "--codec", small_codec)
    assert job.returncode != 0
    assert f"error: {tmp_path}/none.tar: no such file or folder" in job.stdout
    assert "Traceback" not in job.stdout
