"""Files of a released model that lie in a store, fetched by the job that has a client for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from difficmh import cli
from difficmh.capsule import DECODING_FILES, write_manifest
from difficmh.errors import CapsuleError
from difficmh.sd21 import fetch as fetching
from difficmh.sd21.fetch import Fetcher
from difficmh.sd21.sources import Source
from jobs import fetch_model
from pipeline.errors import JobError
from tests.difficmh.sd21.fake_server import DATA, SHA

URL = "memory://models/deep/model.ckpt"


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small chunks, and a models folder of the test's own."""
    monkeypatch.setattr(fetching, "CHUNK", 1000)
    monkeypatch.setattr(fetching, "OVERLAP", 100)
    monkeypatch.setenv("DIFFICMH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def stored() -> Iterator[str]:
    """The URL of an object of `DATA`."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file(URL.removeprefix("memory://"), DATA)
    yield URL
    memory.rm("/models", recursive=True)


def assembled(monkeypatch: pytest.MonkeyPatch, damage: str = "") -> list[bytes]:
    """Has capsules made of empty files, one of them `damage`d afterwards, and collects the contents of checkpoints."""
    found: list[bytes] = []
    released = {"checkpoint": Source("hub://nowhere/at-all/model.ckpt")}
    monkeypatch.setattr("difficmh.sd21.plan.preset_sources", lambda _: released)
    monkeypatch.setattr("difficmh.sd21.plan.CAPSULE_BYTES", {"float32": 1000})

    def assemble(name: str, files: Any, directory: Path, dtype: str) -> str:
        found.append(files["checkpoint"].path.read_bytes())
        directory.mkdir()
        for file in DECODING_FILES:
            (directory / file).touch()
        fingerprint = write_manifest(directory)
        if damage:
            (directory / damage).write_text("damage")
        return fingerprint

    monkeypatch.setattr("difficmh.cli_models._assembler", lambda: assemble)
    return found


@pytest.mark.parametrize("kind", ["memory", "file", "chained"])
def test_any_address_that_fsspec_opens(
    tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.ckpt").write_bytes(DATA)
    addresses = {"memory": stored, "file": f"file://{tmp_path}/model.ckpt", "chained": f"simplecache::{stored}"}
    found = assembled(monkeypatch)
    status = fetch_model.main(["sd21-r4", "--checkpoint", f"{addresses[kind]}#sha256={SHA.upper()}"])
    assert (status, found) == (0, [DATA]), capsys.readouterr()


def test_an_interrupted_download_is_continued(
    models: Path, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = assembled(monkeypatch)
    partial_file = models / "downloads" / "sd21-r4" / "model.ckpt.partial"
    partial_file.parent.mkdir(parents=True)
    partial_file.write_bytes(DATA[:9000])
    starts = []
    read = fsspec.filesystem("memory").cat_file

    def count(_: Any, path: str, start: int, end: int) -> Any:
        starts.append(start)
        return read(path, start=start, end=end)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", count)
    assert fetch_model.main(["sd21-r4", "--checkpoint", stored]) == 0
    assert found == [DATA]
    assert min(starts) == 8900
    assert not partial_file.exists()


def test_other_contents_than_stated_are_refused(
    models: Path, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = assembled(monkeypatch)
    other = hashlib.sha256(b"other").hexdigest()
    assert fetch_model.main(["sd21-r4", "--checkpoint", f"{stored}#sha256={other}"]) == 2
    assert "arrived corrupt and was removed" in capsys.readouterr().err
    assert found == []
    assert not list(models.rglob("model.ckpt*"))


@pytest.mark.parametrize(("damage", "left"), [("", []), ("tags.json", ["model.ckpt", "ram.pth"])])
def test_downloads_go_once_the_capsule_is_whole_and_files_given_by_path_stay(
    models: Path, tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch, damage: str, left: list[str]
) -> None:
    assembled(monkeypatch, damage)
    fsspec.filesystem("memory").pipe_file("models/ram.pth", DATA)
    mine = models / "downloads" / "mine.ckpt"  # even here
    mine.parent.mkdir(parents=True)
    mine.write_bytes(DATA)
    places = ["--tagger", "memory://models/ram.pth", "--stable-diffusion", str(mine)]
    status = fetch_model.main(["sd21-r4", "--checkpoint", stored, *places, "--remove-downloads"])
    assert status == (2 if damage else 0)
    names = [path.name for path in (models / "downloads").rglob("*") if path.is_file()]
    assert sorted(names) == sorted([*left, "fetched.json", "mine.ckpt"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://models/missing.ckpt", "no such file or folder"),
        ("memory://", "names no folder and no bucket"),
        ("nonsense://models/model.ckpt", "nonsense"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, message: str
) -> None:
    assembled(monkeypatch)
    assert fetch_model.main(["sd21-r4", "--checkpoint", url]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_one_image_tool_names_this_job(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "fetch", "sd21-r4", "--checkpoint", "s3://bucket/model.ckpt"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "s3://bucket/model.ckpt: for s3:// run `python jobs/fetch_model.py`" in error
    assert not models.exists()


@pytest.mark.s3
def test_from_an_s3_server(tmp_path: Path, s3: Any) -> None:
    url = s3.put("deep/model.ckpt", DATA)
    (tmp_path / "model.ckpt.partial").write_bytes(DATA[:9000])
    fetcher = Fetcher(tmp_path, partial(fetch_model.open_stored, options=s3.storage_options))
    assert fetcher.fetch(Source(url), "model.ckpt").path.read_bytes() == DATA
    s3.put("deep/model.ckpt", DATA[:-1])
    (tmp_path / "model.ckpt").unlink()
    with pytest.raises(CapsuleError, match="12,799 bytes, not 12,800"):
        fetcher.fetch(Source(url), "model.ckpt")
    with pytest.raises(JobError, match="no such file or folder"):
        fetcher.fetch(Source(f"{url}.missing"), "other.ckpt")


@pytest.mark.s3
def test_a_server_that_breaks_off_and_sends_too_little(tmp_path: Path, s3: Any, faulty_s3: Any) -> None:
    options = faulty_s3("--seed", "3", "--shorten", "0.3", "--reset", "0.2")
    fetcher = Fetcher(tmp_path, partial(fetch_model.open_stored, options=options))
    assert fetcher.fetch(Source(s3.put("model.ckpt", DATA), SHA), "model.ckpt").path.read_bytes() == DATA
