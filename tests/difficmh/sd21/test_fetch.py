import errno
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import fsspec
import huggingface_hub
import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21 import fetch as fetching
from difficmh.sd21.fetch import RECORD, Fetcher, RemoteFile, parse_hub
from difficmh.sd21.sources import RATES, SEPARATE, SHARED, Source, preset_sources

DATA = bytes(range(256)) * 50
SHA = hashlib.sha256(DATA).hexdigest()
URL = "https://example.org/model.ckpt"


@dataclass
class Server:
    """A URL opener that counts what is read, and may break or not be seekable."""

    data: bytes = DATA
    breaks_at: int | None = None
    seekable: bool = True
    read: int = 0

    @contextmanager
    def __call__(self, url: str) -> Iterator[IO[bytes]]:
        yield _Stream(self)


class _Stream(io.BytesIO):
    def __init__(self, server: Server) -> None:
        super().__init__(server.data)
        self.server = server

    def seek(self, offset: int, whence: int = 0) -> int:
        if not self.server.seekable:
            raise ValueError("cannot seek a stream")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        stop = self.server.breaks_at
        if stop is not None and self.tell() >= stop:
            raise ConnectionResetError("connection lost")
        chunk = super().read(size if stop is None or size is None else min(size, stop - self.tell()))
        self.server.read += len(chunk)
        return chunk


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
    with pytest.raises(CapsuleError, match=message):
        Fetcher(tmp_path).fetch(Source(str(tmp_path / source.location), source.sha256, source.size), "model.ckpt")


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
            stream = _Stream(self)
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
    with pytest.raises(CapsuleError, match="does not say how large it is"):
        Fetcher(tmp_path, server).fetch(Source(URL), "model.ckpt")
    assert Fetcher(tmp_path, server).fetch(Source(URL, SHA, len(DATA)), "model.ckpt").sha256 == SHA


def test_a_corrupt_download_is_removed(tmp_path: Path) -> None:
    flipped = bytearray(DATA)
    flipped[7000] ^= 1
    with pytest.raises(CapsuleError, match=r"arrived corrupt and was removed.*SHA-256"):
        Fetcher(tmp_path, Server(bytes(flipped))).fetch(Source(URL, SHA), "model.ckpt")
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

    def __enter__(self) -> "_FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


# --- hubs


@dataclass
class FakeHub:
    """Serves `data` at the newest commit."""

    data: bytes = DATA
    commit: str = "c0ffee"
    sha256: str | None = SHA
    asked: list[str | None] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def describe(self, repository: str, revision: str | None, path: str) -> RemoteFile:
        self.before()
        self.asked.append(revision)
        return RemoteFile(revision or self.commit, self.sha256, len(self.data))

    def download(self, repository: str, revision: str | None, path: str, folder: Path) -> Path:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.data)
        return file


def test_the_revision_of_a_hub_file_is_recorded_and_kept(tmp_path: Path) -> None:
    hub = FakeHub()
    source = Source("hub://owner/name/deep/model.ckpt")
    found = Fetcher(tmp_path, hub=hub).fetch(source, "model.ckpt")
    assert (found.location, found.sha256) == ("hub://owner/name@c0ffee/deep/model.ckpt", SHA)
    found.path.unlink()
    hub.commit = "newer"
    assert Fetcher(tmp_path, hub=hub).fetch(source, "model.ckpt") == found
    assert hub.asked == [None, "c0ffee"]


def test_a_pinned_revision_is_asked_for(tmp_path: Path) -> None:
    hub = FakeHub()
    Fetcher(tmp_path, hub=hub).fetch(Source("hub://owner/name@v1.0/model.ckpt"), "model.ckpt")
    assert hub.asked == ["v1.0"]


@pytest.mark.parametrize("hub", [FakeHub(data=DATA[:-1] + b"?"), FakeHub(data=DATA[:-1], sha256=None)])
def test_a_hub_file_that_differs_is_removed(tmp_path: Path, hub: FakeHub) -> None:
    with pytest.raises(CapsuleError, match="arrived corrupt"):
        Fetcher(tmp_path, hub=hub).fetch(Source("hub://owner/name/model.ckpt", SHA, len(DATA)), "model.ckpt")
    assert not (tmp_path / "model.ckpt").exists()


def test_a_hub_out_of_reach_is_an_error_of_ours(tmp_path: Path) -> None:
    def down() -> None:
        raise ConnectionError("no route")

    with pytest.raises(CapsuleError, match="no route"):
        Fetcher(tmp_path, hub=FakeHub(before=down)).fetch(Source("hub://owner/name/model.ckpt"), "model.ckpt")


def test_the_hub_client_is_asked_for_commit_size_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def metadata(url: str) -> Any:
        asked.append(url)
        return SimpleNamespace(commit_hash="c0ffee", etag=SHA, size=len(DATA))

    def download(repository: str, path: str, *, revision: str | None, local_dir: Path) -> str:
        asked.append((repository, path, revision))
        local_dir.mkdir(parents=True)
        (local_dir / path).write_bytes(DATA)
        return str(local_dir / path)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = Fetcher(tmp_path).fetch(Source("hub://owner/name/model.ckpt"), "model.ckpt")
    assert found.location == "hub://owner/name@c0ffee/model.ckpt"
    assert asked[0].endswith("/owner/name/resolve/main/model.ckpt")
    assert asked[1] == ("owner/name", "model.ckpt", "c0ffee")


@pytest.mark.parametrize("location", ["hub://", "hub://owner", "hub://owner/name", "hub://owner/name@/x", "hub:///n/x"])
def test_a_hub_location_has_four_parts(location: str) -> None:
    with pytest.raises(CapsuleError, match="is not hub://"):
        parse_hub(location)


# --- the catalogue


def test_each_rate_has_its_checkpoint_and_shares_the_rest() -> None:
    checkpoints = {preset_sources(rate)["checkpoint"].location for rate in RATES}
    assert len(checkpoints) == len(RATES)
    assert all({*SHARED, "checkpoint"} == set(preset_sources(rate)) for rate in RATES)
    with pytest.raises(ValueError, match="no model of rate 3"):
        preset_sources(3)


def test_every_source_is_well_formed() -> None:
    sources = [*SHARED.values(), *SEPARATE.values(), *(preset_sources(rate)["checkpoint"] for rate in RATES)]
    for source in sources:
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
        if source.location.startswith("hub://"):
            parse_hub(source.location)
        else:
            assert source.location.startswith("https://")
            assert source.sha256
