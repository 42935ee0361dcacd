"""An archive of version 1 as it was once written: every release reads it, and goes on with it where it stopped."""

from __future__ import annotations

import io
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import torch

from pipeline.archive import Archive
from pipeline.manifest import make_plan, read_manifest
from pipeline.records import ShardSource
from pipeline.storage import Storage
from pipeline.table import open_part
from tests.corpora import jpeg, tar_bytes
from tests.fakes import FakeCodec
from tests.golden.regenerate_archive import ARCHIVE, MANIFEST, job, source
from tests.pipeline.archives import fake_codec, run_job

DRIVE = ShardSource("memory://golden-corpus/drive.tar", 10240, "tag of drive")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    shutil.copytree(ARCHIVE, tmp_path / "archive")
    return Storage.from_url(str(tmp_path / "archive"))


def open_archive(storage: Storage, tmp_path: Path) -> Archive:
    return Archive.open(storage.url, codec_factory=fake_codec, cache=tmp_path / "cache")


def contents(storage: Storage) -> dict[str, bytes]:
    return {path: storage.read(path) for path in storage.list()}


def test_its_rows_are_found(storage: Storage, tmp_path: Path) -> None:
    archive = open_archive(storage, tmp_path)
    (found,) = archive.query("camera = 'front' AND captured_at > '2026-01-01'").to_pylist()
    assert (found["key"], found["image_name"], found["shard"]) == ("drive/000", "drive/000.jpg", DRIVE.url)
    assert (found["width"], found["height"], found["codec"], found["tags"]) == (32, 24, "fake", ["green"])
    assert (found["captured_at"], found["latitude"]) == (datetime(2026, 3, 1, 12, 30), 48.1)
    assert sorted(archive.keys()) == ["drive/000", "drive/001"]
    totals = archive.info().totals
    assert (totals.shards, totals.images, totals.rejects, totals.pixels) == (1, 2, 1, 1536)


def test_its_pictures_are_drawn(storage: Storage, tmp_path: Path) -> None:
    archive = open_archive(storage, tmp_path)
    (expected,) = FakeCodec(capsule=tmp_path).decompress([archive.bitstream("drive/001")])
    assert torch.equal(archive.get("drive/001"), expected)
    assert expected.shape == (3, 24, 32)


def test_its_rejects_are_read(storage: Storage) -> None:
    (path,) = storage.list("rejects")
    (row,) = open_part(io.BytesIO(storage.read(path))).read().to_pylist()
    assert (row["key"], row["shard"], row["stage"], row["data"]) == ("drive/002", DRIVE.url, "decode", b"no picture")


def test_the_same_job_finds_nothing_to_do(storage: Storage) -> None:
    before = contents(storage)
    assert read_manifest(storage, "archive") == MANIFEST
    assert make_plan(storage, MANIFEST, [DRIVE], overwrite=False).pending == []
    summary = run_job(job(storage), storage, [DRIVE], MANIFEST)
    assert (summary.totals.shards, summary.this_run.shards) == (1, 0)
    assert contents(storage) == before


def test_it_grows_without_redoing_what_is_done(storage: Storage, tmp_path: Path) -> None:
    before = contents(storage)
    more = source("more", tar_bytes([("more/000.jpg", jpeg(5))]))
    summary = run_job(job(storage), storage, [DRIVE, more], MANIFEST)
    assert (summary.totals.shards, summary.this_run.shards) == (2, 1)
    assert contents(storage).items() >= before.items()
    assert sorted(open_archive(storage, tmp_path).keys()) == ["drive/000", "drive/001", "more/000"]
