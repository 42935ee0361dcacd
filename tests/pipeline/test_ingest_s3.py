"""Listing and reading shards through the S3 server, and through a proxy that injects faults between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import TransientError, Verdict, decide
from pipeline.listing import expand
from pipeline.records import Failure, Sample, ShardSource
from pipeline.retry import Retry
from pipeline.shards import read_shard
from pipeline.storage import Storage
from tests.corpora import jpeg, shard_bytes
from tests.s3_server import Bucket

pytestmark = pytest.mark.s3

PATIENT = Retry(attempts=25, budget=60, first=0.01, ceiling=0.05)
HASTY = Retry(attempts=2, budget=5, first=0.01)
EVERYTHING = ("--slow-down", "0.1", "--error", "0.1", "--reset", "0.1", "--truncate", "0.1", "--shorten", "0.1")


def put_shards(s3: Bucket, count: int = 2) -> None:
    for shard in range(count):
        compress = shard % 2 == 1
        s3.put(f"cam-{shard}.{'tgz' if compress else 'tar'}", shard_bytes(4, start=4 * shard, compress=compress))


def read(source: ShardSource, options: dict[str, Any], retry: Retry = PATIENT) -> list[Sample | Failure]:
    folder, _, name = source.url.rpartition("/")
    with Storage.from_url(folder, options, retry).open(name) as file:
        return list(read_shard(file, source.url))


def test_shards_are_listed_and_read(s3: Bucket) -> None:
    put_shards(s3)
    sources = expand([s3.url], s3.storage_options)
    records = [record for source in sources for record in read(source, s3.storage_options)]
    assert [record.key for record in records] == [f"{index:06d}" for index in range(8)]
    assert [record.image for record in records if isinstance(record, Sample)] == [jpeg(seed) for seed in range(8)]


@pytest.mark.parametrize(
    "faults", [("--truncate", "0.5"), ("--shorten", "0.5"), EVERYTHING], ids=["truncate", "shorten", "everything"]
)
def test_faults_change_nothing(s3: Bucket, faulty_s3: Callable[..., dict[str, Any]], faults: tuple[str, ...]) -> None:
    put_shards(s3)
    options = faulty_s3("--seed", "3", *faults)
    sources = expand([s3.url], options, PATIENT)
    assert sources == expand([s3.url], s3.storage_options)
    for source in sources:
        records = read(source, options)
        assert all(isinstance(record, Sample) for record in records)
        assert len(records) == 4


def test_body_that_stays_short_is_an_error_not_a_short_shard(
    s3: Bucket, faulty_s3: Callable[..., dict[str, Any]]
) -> None:
    put_shards(s3, 1)
    (source,) = expand([s3.url], s3.storage_options)
    options = faulty_s3("--shorten", "1", "--match", r"cam-0\.tar")
    with pytest.raises(TransientError, match="bytes came of"):
        read(source, options, HASTY)


def test_store_that_stays_broken_is_an_error(s3: Bucket, faulty_s3: Callable[..., dict[str, Any]]) -> None:
    put_shards(s3, 1)
    (source,) = expand([s3.url], s3.storage_options)
    with pytest.raises(OSError, match="Service Unavailable") as caught:
        read(source, faulty_s3("--slow-down", "1"), HASTY)
    assert decide(caught.value) is Verdict.RETRY


def test_object_that_is_cut_in_the_store_is_one_failure(s3: Bucket) -> None:
    s3.put("cut.tar", shard_bytes(4)[:5000])
    (source,) = expand([s3.url], s3.storage_options)
    assert source.size == 5000
    records = read(source, s3.storage_options)
    assert [type(record) for record in records[-2:]] == [Sample, Failure]
