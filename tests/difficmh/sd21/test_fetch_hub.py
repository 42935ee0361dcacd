"""Files of a hub: revision, size and hash, recorded on the first fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21.fetch import Fetcher, RemoteFile, parse_hub
from difficmh.sd21.sources import Source
from tests.difficmh.sd21.fake_server import DATA, SHA


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
