"""Small archives for tests of what reads them, written with the pipeline's own table and commit code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempts import WorkerFactory
from pipeline.commit import DATA, ShardCommit
from pipeline.driver import Summary, run
from pipeline.manifest import Manifest, establish, make_plan, read_manifest
from pipeline.records import ShardReport, ShardSource
from pipeline.retry import Retry
from pipeline.storage import Storage
from pipeline.table import ARCHIVE_SCHEMA, PartWriter, TableRow, with_versions
from tests.corpora import picture
from tests.fakes import FINGERPRINT, FakeCodec, LocalPool, Silence


def fake_codec(capsule: str, device: str, dtype: str | None = None) -> FakeCodec:
    """A codec factory for archives; the capsule has to be there."""
    assert (Path(capsule) / "codec.txt").read_text() == "fake"
    return FakeCodec(capsule=Path(capsule), device=device)


def row(key: str, shard: str = "in/a.tar", seed: int = 0, **fields: Any) -> TableRow:
    """The row of a small picture, 24 x 32, different for each seed."""
    image = picture(seed)
    (bitstream,) = FakeCodec(capsule=Path()).compress([image], quality=3)
    known: dict[str, Any] = {
        "key": key,
        "image_name": f"{key}.jpg",
        "shard": shard,
        "bitstream": bitstream,
        "codec": FakeCodec.name,
        "width": image.shape[1],
        "height": image.shape[0],
        "original_bytes": 1000 + seed,
        "original_sha256": hashlib.sha256(bitstream).hexdigest(),
        "bits_per_pixel": 8 * len(bitstream) / image[:, :, 0].size,
    }
    return TableRow(**{**known, **fields})


def write_archive(
    url: str | Path, rows: Iterable[TableRow], options: Mapping[str, Any] | None = None, row_group_bytes: int = 2**20
) -> Storage:
    """An archive of those rows, one part for each `shard` among them, with a capsule and reports."""
    storage = Storage.from_url(str(url), options)
    put(storage, "archive.json", manifest().to_json().encode())
    put_capsule(storage)
    shards: dict[str, list[TableRow]] = {}
    for each in rows:
        shards.setdefault(each.shard, []).append(each)
    for shard, shard_rows in shards.items():
        write_part(storage, shard, shard_rows, row_group_bytes)
    return storage


def put_capsule(storage: Storage) -> None:
    """The model of those archives, for `fake_codec`."""
    put(storage, "capsule/codec.txt", b"fake")
    digests = {"codec.txt": {"sha256": hashlib.sha256(b"fake").hexdigest()}}
    put(storage, "capsule/manifest.json", json.dumps({"files": digests}).encode())


def manifest(**fields: Any) -> Manifest:
    """What `archive.json` of those archives says."""
    known = {"kind": "archive", "job": "compress", "codec": FakeCodec.name, "codec_fingerprint": FINGERPRINT}
    return Manifest(**{**known, "settings": {}, **fields})


def write_part(storage: Storage, shard: str, rows: Iterable[TableRow], row_group_bytes: int = 2**20) -> ShardReport:
    """One part and its report; several rows share a row group only up to `row_group_bytes`."""
    source = ShardSource(shard, 1, "etag")
    rows = list(rows)
    described = read_manifest(storage, "archive")
    assert described is not None
    fingerprint = described.job_fingerprint
    with ShardCommit(storage, source, fingerprint) as commit:
        with (
            commit.output(f"{DATA}/{commit.name}.parquet") as file,
            PartWriter(file, with_versions(ARCHIVE_SCHEMA, FINGERPRINT), row_group_bytes) as part,
        ):
            for each in rows:
                part.write(vars(each))
        pixels = sum(each.width * each.height for each in rows)
        return commit.finish(ShardReport(shard, source, fingerprint, images=len(rows), pixels=pixels))


def put(storage: Storage, path: str, data: bytes) -> None:
    with storage.atomic_write(path) as file:
        file.write(data)


def noted_patience(monkeypatch: pytest.MonkeyPatch, *names: str) -> set[tuple[str, Retry]]:
    """Fills up with what storages are asked from now on, of these methods, and how patiently."""
    asked = set()

    def note(name: str, method: Any) -> Any:
        def noted(storage: Storage, *arguments: Any, **options: Any) -> Any:
            asked.add((name, storage.retry))
            return method(storage, *arguments, **options)

        return noted

    for name in names:
        monkeypatch.setattr(Storage, name, note(name, getattr(Storage, name)))
    return asked


def run_job(job: WorkerFactory, output: Storage, sources: list[ShardSource], described: Manifest) -> Summary:
    """What a job script does, in this process and without Ray."""
    plan = make_plan(output, described, sources, overwrite=False)
    establish(output, described, plan)
    return run(plan, LocalPool(job), output, Silence())
