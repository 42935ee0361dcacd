"""What the tests of the reading jobs share: an archive that the fake codec reads, and jobs that run without Ray."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.archive import Archive
from pipeline.attempts import LocalPool, WorkerFactory
from pipeline.driver import Summary, run
from pipeline.manifest import Plan
from pipeline.storage import Storage
from tests.pipeline.archives import Silence, fake_codec, row, write_archive

ROWS = [
    row("000", "in/a.tar", 0, tags=["car"], tag_scores=[0.5]),
    row("001", "in/a.tar", 1),
    row("../002", "in/b.tar", 2, tags=["tree"], tag_scores=[0.5]),
]
DAMAGED = replace(ROWS[0], key="damaged", bitstream=b"FAKE")


def execute_here(plan: Plan, factory: WorkerFactory, output: Storage, workers: Any) -> Summary:
    """In place of `pipeline.job.execute`: one worker, in this process."""
    return run(plan, LocalPool(factory), output, Silence())


def without_ray(module: ModuleType, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Lets a job's `main` run in this process and decode with the fake codec."""
    with_fake_codec(monkeypatch, cache)
    monkeypatch.setattr(module, "execute", execute_here)


def with_fake_codec(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr("difficmh.load", fake_codec)
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr(Archive, "open", partial(Archive.open, cache=cache))


def archive(folder: Path, damaged: bool = False) -> str:
    """The URL of a small archive of two parts."""
    return write_archive(folder / "archive", [*ROWS, *([DAMAGED] if damaged else [])]).url
