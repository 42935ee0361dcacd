"""Files of a hub: revision, size and hash, recorded on the first fetch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import huggingface_hub
import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21 import fetch as fetching
from difficmh.sd21.fetch import RECORD, Fetcher
from difficmh.sd21.hub import RemoteFile, parse_hub
from difficmh.sd21.sources import Source
from tests.difficmh.sd21.fake_server import DATA, SHA, URL, Server


@dataclass
class FakeHub:
    """Says that `DATA` is at the newest commit."""

    commit: str = "c0ffee"
    sha256: str | None = SHA
    asked: list[str | None] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def describe(self, repository: str, revision: str | None, path: str) -> RemoteFile:
        self.before()
        self.asked.append(revision)
        commit = revision or self.commit
        return RemoteFile(f"https://hub/{repository}/{commit}/{path}", commit, self.sha256, len(DATA))


def test_the_revision_of_a_hub_file_is_recorded_and_kept(tmp_path: Path) -> None:
    hub = FakeHub()
    source = Source("hub://owner/name/deep/model.ckpt")
    found = Fetcher(tmp_path, Server(), hub).fetch(source, "model.ckpt")
    assert (found.location, found.sha256) == ("hub://owner/name@c0ffee/deep/model.ckpt", SHA)
    found.path.unlink()
    hub.commit = "newer"
    assert Fetcher(tmp_path, Server(), hub).fetch(source, "model.ckpt") == found
    assert hub.asked == [None, "c0ffee"]


def test_a_pinned_revision_is_asked_for(tmp_path: Path) -> None:
    hub = FakeHub()
    Fetcher(tmp_path, Server(), hub).fetch(Source("hub://owner/name@v1.0/model.ckpt"), "model.ckpt")
    assert hub.asked == ["v1.0"]


@pytest.mark.parametrize("sha256", [SHA, None])
def test_a_hub_file_that_differs_is_removed(tmp_path: Path, sha256: str | None) -> None:
    fetcher = Fetcher(tmp_path, Server(DATA[:-1] + b"?"), FakeHub(sha256=sha256))
    with pytest.raises(CapsuleError, match="arrived corrupt"):
        fetcher.fetch(Source("hub://owner/name/model.ckpt", None if sha256 else SHA), "model.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stated", [Source(URL, "1" * 64), Source(URL, None, 5)])
def test_another_file_than_the_stated_one_is_not_downloaded(tmp_path: Path, stated: Source) -> None:
    server = Server()
    source = replace(stated, location="hub://owner/name/model.ckpt")
    with pytest.raises(CapsuleError, match="the hub has another file"):
        Fetcher(tmp_path, server, FakeHub()).fetch(source, "model.ckpt")
    assert server.read == 0


def test_another_file_than_the_recorded_one_is_not_downloaded(tmp_path: Path) -> None:
    source = Source("hub://owner/name/model.ckpt")
    Fetcher(tmp_path, Server(), FakeHub()).fetch(source, "model.ckpt").path.unlink()
    server = Server()
    with pytest.raises(CapsuleError, match="the hub has another file"):
        Fetcher(tmp_path, server, FakeHub(sha256="1" * 64)).fetch(source, "model.ckpt")
    assert server.read == 0


def test_an_interrupted_download_from_a_hub_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "OVERLAP", 100)
    source = Source("hub://owner/name/model.ckpt")
    with pytest.raises(CapsuleError, match=r"hub://owner/name.*fetch again to continue"):
        Fetcher(tmp_path, Server(breaks_at=5000), FakeHub()).fetch(source, "model.ckpt")
    server = Server()
    assert Fetcher(tmp_path, server, FakeHub()).fetch(source, "model.ckpt").path.read_bytes() == DATA
    assert server.read == len(DATA) - 5000 + 100
    assert sorted(file.name for file in tmp_path.iterdir()) == [RECORD, "model.ckpt"]


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

    @contextmanager
    def opener(url: str) -> Iterator[IO[bytes]]:
        asked.append(url)
        yield io.BytesIO(DATA)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    found = Fetcher(tmp_path, opener).fetch(Source("hub://owner/name/model.ckpt"), "model.ckpt")
    assert (found.location, found.sha256) == ("hub://owner/name@c0ffee/model.ckpt", SHA)
    assert [url.partition("/owner/")[2] for url in asked] == [
        "name/resolve/main/model.ckpt",
        "name/resolve/c0ffee/model.ckpt",
    ]


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("no route")])
def test_whatever_the_hub_client_raises_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its errors are those of an http library of its own, which derive from no built-in one but Exception."""

    def metadata(url: str) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    with pytest.raises(CapsuleError, match=r"owner/name/model.ckpt cannot be had from the hub.*no route"):
        Fetcher(tmp_path).fetch(Source("hub://owner/name/model.ckpt"), "model.ckpt")


@pytest.mark.parametrize("location", ["hub://", "hub://owner", "hub://owner/name", "hub://owner/name@/x", "hub:///n/x"])
def test_a_hub_location_has_four_parts(location: str) -> None:
    with pytest.raises(CapsuleError, match="is not hub://"):
        parse_hub(location)
