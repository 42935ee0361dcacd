"""Local files and URLs: fetched once, whole, checked, continued. Hubs are in `test_fetch_hub.py`."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21 import fetch as fetching
from difficmh.sd21.fetch import RECORD, Fetcher
from difficmh.sd21.sources import Source
from tests.difficmh.sd21.fake_server import DATA, SHA, URL, Server, Stream


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CHUNK", 1000)
    monkeypatch.setattr(fetching, "OVERLAP", 100)


# --- local files


def test_a_local_file_is_checked_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "here.ckpt"
    file.write_bytes(DATA)
    found = Fetcher(tmp_path / "cache").fetch(Source(str(file), SHA, len(DATA)), "model.ckpt")
    assert (found.path, found.sha256, found.size) == (file, SHA, len(DATA))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("here.ckpt", "0" * 64), f"has SHA-256 {SHA}, not 000"),
        (Source("here.ckpt", None, 5), r"has 12,800 bytes, not 5"),
        (Source("elsewhere.ckpt"), "there is no file"),
        (Source("here.ckpt", "abc"), "is no SHA-256"),
    ],
)
def test_a_local_file_that_differs_is_refused(tmp_path: Path, source: Source, message: str) -> None:
    (tmp_path / "here.ckpt").write_bytes(DATA)
    with pytest.raises(CapsuleError, match=message) as refusal:
        Fetcher(tmp_path).fetch(Source(str(tmp_path / source.location), source.sha256, source.size), "model.ckpt")
    assert "remove it" not in str(refusal.value), "it is not ours to fetch again"


# --- URLs


def test_a_url_is_fetched_once_and_recorded(tmp_path: Path) -> None:
    server = Server()
    fetcher = Fetcher(tmp_path, server)
    found = fetcher.fetch(Source(URL), "model.ckpt")
    assert found.path.read_bytes() == DATA
    assert json.loads((tmp_path / RECORD).read_text()) == {URL: {"location": URL, "sha256": SHA, "size": len(DATA)}}
    server.read = 0
    assert fetcher.fetch(Source(URL), "model.ckpt") == found
    assert server.read == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [RECORD, "model.ckpt"]


def test_a_url_needs_an_opener(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="nothing was given that opens it"):
        Fetcher(tmp_path).fetch(Source(URL), "model.ckpt")


@pytest.mark.parametrize("stop", [1, 99, 100, 101, 5000, 12_799])
def test_an_interrupted_download_is_continued(tmp_path: Path, stop: int) -> None:
    server = Server(breaks_at=stop)
    with pytest.raises(CapsuleError, match=r"connection lost.*fetch again to continue"):
        Fetcher(tmp_path, server).fetch(Source(URL, SHA), "model.ckpt")
    partial = tmp_path / "model.ckpt.partial"
    assert partial.read_bytes() == DATA[:stop]
    assert not (tmp_path / "model.ckpt").exists()
    server = Server()
    assert Fetcher(tmp_path, server).fetch(Source(URL, SHA), "model.ckpt").path.read_bytes() == DATA
    assert server.read == len(DATA) - stop + min(stop, 100)
    assert not partial.exists()


def test_a_shortened_body_is_an_interruption(tmp_path: Path) -> None:
    """The server says how much there is and sends less, without an error."""

    class Short(Server):
        @contextmanager
        def __call__(self, url: str) -> Iterator[IO[bytes]]:
            stream = Stream(self)
            whole = stream.read
            stream.read = lambda size=-1: whole(size) if stream.tell() < 3000 else b""  # type: ignore[method-assign]
            yield stream

    with pytest.raises(CapsuleError, match=r"interrupted after 3,000 of 12,800 bytes"):
        Fetcher(tmp_path, Short()).fetch(Source(URL), "model.ckpt")
    assert Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt").sha256 == SHA


def test_a_partial_file_of_other_contents_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.partial").write_bytes(DATA[::-1][:5000])
    assert Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt").sha256 == SHA
    (tmp_path / "model.ckpt").unlink()
    (tmp_path / "model.ckpt.partial").write_bytes(DATA + b"more")
    assert Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt").sha256 == SHA


def test_a_stream_that_cannot_be_sought_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.partial").write_bytes(DATA[:5000])
    server = Server(seekable=False)
    with pytest.raises(CapsuleError, match="does not say how large it is: give #sha256="):
        Fetcher(tmp_path, server).fetch(Source(URL), "model.ckpt")
    assert Fetcher(tmp_path, server).fetch(Source(URL, SHA, len(DATA)), "model.ckpt").sha256 == SHA


def test_a_hash_is_enough_where_the_size_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="arrived corrupt"):
        Fetcher(tmp_path, Server(DATA[:-1], seekable=False)).fetch(Source(URL, SHA), "model.ckpt")
    assert Fetcher(tmp_path, Server(seekable=False)).fetch(Source(URL, SHA), "model.ckpt").size == len(DATA)


def test_a_corrupt_download_is_removed(tmp_path: Path) -> None:
    flipped = bytearray(DATA)
    flipped[7000] ^= 1
    with pytest.raises(CapsuleError, match=r"arrived corrupt and was removed.*SHA-256") as refusal:
        Fetcher(tmp_path, Server(bytes(flipped))).fetch(Source(URL, SHA), "model.ckpt")
    assert "remove it" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
    assert Fetcher(tmp_path, Server()).fetch(Source(URL, SHA), "model.ckpt").sha256 == SHA


def test_a_source_of_another_size_is_not_downloaded(tmp_path: Path) -> None:
    server = Server()
    with pytest.raises(CapsuleError, match=r"has 12,800 bytes, not 12,801"):
        Fetcher(tmp_path, server).fetch(Source(URL, SHA, len(DATA) + 1), "model.ckpt")
    assert server.read == 0


def test_what_the_first_fetch_found_is_demanded_afterwards(tmp_path: Path) -> None:
    Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")
    (tmp_path / "model.ckpt").unlink()
    with pytest.raises(CapsuleError, match="arrived corrupt"):
        Fetcher(tmp_path, Server(DATA[::-1])).fetch(Source(URL), "model.ckpt")


def test_a_flipped_byte_on_disk_is_noticed(tmp_path: Path) -> None:
    Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")
    (tmp_path / "model.ckpt").write_bytes(DATA[:-1] + b"?")
    with pytest.raises(CapsuleError, match="remove it to fetch it again"):
        Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")


def test_a_demanded_hash_overrules_the_record(tmp_path: Path) -> None:
    Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")
    with pytest.raises(CapsuleError, match="not 111"):
        Fetcher(tmp_path, Server()).fetch(Source(URL, "1" * 64), "model.ckpt")


def test_a_file_of_another_source_is_not_mistaken(tmp_path: Path) -> None:
    Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")
    other = Fetcher(tmp_path, Server(b"other")).fetch(Source(f"{URL}?2"), "model.ckpt")
    assert other.path.read_bytes() == b"other"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(CapsuleError, match=RECORD):
        Fetcher(tmp_path, Server()).fetch(Source(URL), "model.ckpt")


def test_fsspec_opens_urls(tmp_path: Path) -> None:
    url = "memory://fetch/model.ckpt"
    with fsspec.open(url, "wb") as file:
        file.write(DATA)
    (tmp_path / "model.ckpt.partial").write_bytes(DATA[:5000])
    assert Fetcher(tmp_path, fsspec.open).fetch(Source(url, SHA), "model.ckpt").size == len(DATA)


# --- disk


def test_space_is_checked_before_a_byte_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=len(DATA))
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    server = Server()
    with pytest.raises(CapsuleError, match=r"GB free, and .* GB are needed"):
        Fetcher(tmp_path, server).fetch(Source(URL), "model.ckpt")
    assert server.read == 0


def test_a_disk_that_fills_up_keeps_what_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def small_disk(path: Path, mode: str = "r", **rest: Any) -> Any:
        file = whole(path, mode, **rest)
        if mode in ("ab", "wb"):
            return _FullDisk(file, 3000)
        return file

    monkeypatch.setattr(Path, "open", small_disk)
    with pytest.raises(CapsuleError, match="the disk is full"):
        Fetcher(tmp_path, Server()).fetch(Source(URL, SHA), "model.ckpt")
    monkeypatch.undo()
    assert (tmp_path / "model.ckpt.partial").read_bytes() == DATA[:3000]
    assert Fetcher(tmp_path, Server()).fetch(Source(URL, SHA), "model.ckpt").sha256 == SHA


class _FullDisk:
    def __init__(self, file: IO[bytes], room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)
