"""What the tests of the reading jobs share: an archive that the fake codec reads, and jobs that run without Ray."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import compress_dataset
from jobs.compress_dataset import InstalledCodec
from pipeline.actors import PoolSize
from pipeline.archive import Archive
from tests.fakes import FINGERPRINT, FakeCodecFactory, LocalPool
from tests.pipeline.archives import fake_codec, row, write_archive

ROWS = [
    row("000", "in/a.tar", 0, tags=["car"], tag_scores=[0.5]),
    row("001", "in/a.tar", 1),
    row("../002", "in/b.tar", 2, tags=["tree"], tag_scores=[0.5]),
]
DAMAGED = replace(ROWS[0], key="damaged", bitstream=b"FAKE")


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the jobs' `main` run with one worker in this process."""
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("pipeline.job.pool_size", lambda *wanted: PoolSize(1, 1.0))
    monkeypatch.setattr("pipeline.job.RayPool", lambda factory, size: LocalPool(factory))


def all_without_ray(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets `main` of every job run in this process with the fake codec, whose files go into `folder`."""
    capsule = folder / "fake"
    capsule.mkdir()
    (capsule / "codec.txt").write_text("fake")
    files = {"codec.txt": {"sha256": hashlib.sha256(b"fake").hexdigest()}}
    (capsule / "manifest.json").write_text(json.dumps({"files": files}))
    codec = InstalledCodec("fake", FINGERPRINT, capsule, FakeCodecFactory(capsule), range(1, 7), 3, 1000)
    monkeypatch.setattr(compress_dataset, "installed_codec", lambda name: codec)
    without_ray(monkeypatch)
    with_fake_codec(monkeypatch, folder / "cache")


def with_fake_codec(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Lets the reading jobs decode with the fake codec, and keep models in `cache` where they are told no other place.

    Archives are opened so, as what is patched here does not reach the workers of a real Ray.
    """
    opened = Archive.open

    def open_archive(*arguments: Any, **options: Any) -> Archive:
        return opened(*arguments, **{**options, "cache": options.get("cache") or cache})

    monkeypatch.setattr("difficmh.load", fake_codec)
    monkeypatch.setattr(Archive, "open", open_archive)


def archive(folder: Path, damaged: bool = False) -> str:
    """The URL of a small archive of two parts."""
    return write_archive(folder / "archive", [*ROWS, *([DAMAGED] if damaged else [])]).url
