"""Reading a shard of given files, for tests of `shards` and `grouping`."""

from __future__ import annotations

import io
import tarfile

from pipeline.records import Failure, Sample
from pipeline.shards import read_shard
from tests.corpora import Member, jpeg, tar_bytes

URL = "s3://bucket/shard.tar"
A, B, C = jpeg(1), jpeg(2), jpeg(3)


def read(data: bytes) -> tuple[list[Sample], list[Failure], int]:
    """Samples, failures and the number of samples without image."""
    reader = read_shard(io.BytesIO(data), URL)
    records = list(reader)
    samples = [record for record in records if isinstance(record, Sample)]
    failures = [record for record in records if isinstance(record, Failure)]
    assert all(record.shard == URL for record in records)
    return samples, failures, reader.skipped


def read_members(*members: Member | tarfile.TarInfo) -> tuple[list[Sample], list[Failure], int]:
    return read(tar_bytes(members))


def keys(*members: Member) -> list[str]:
    samples, failures, _ = read_members(*members)
    assert failures == []
    return [sample.key for sample in samples]
