from __future__ import annotations

import errno
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.capsule import default_cache, fetch_capsule
from pipeline.part import ArchiveError
from pipeline.storage import Storage
from tests.pipeline.archives import put

FILES = {"config.json": b"{}", "licences/a.txt": b"Apache", "weights.safetensors": bytes(1000)}


@pytest.fixture
def archive(tmp_path: Path) -> Storage:
    storage = Storage.from_url(str(tmp_path / "archive"))
    for name, data in FILES.items():
        put(storage, f"capsule/{name}", data)
    write_manifest(storage, {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()})
    return storage


def write_manifest(storage: Storage, digests: dict[str, str]) -> None:
    put(
        storage,
        "capsule/manifest.json",
        json.dumps({"files": {name: {"sha256": digest} for name, digest in digests.items()}}).encode(),
    )


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_a_whole_copy_with_its_manifest(archive: Storage, tmp_path: Path) -> None:
    found = contents(fetch_capsule(archive, tmp_path / "cache"))
    assert found.pop("manifest.json") == archive.read("capsule/manifest.json")
    assert found == FILES


def test_the_second_time_nothing_is_copied(archive: Storage, tmp_path: Path) -> None:
    first = fetch_capsule(archive, tmp_path / "cache")
    archive.delete("capsule/weights.safetensors")
    assert fetch_capsule(archive, tmp_path / "cache") == first


def test_a_damaged_copy_is_replaced(archive: Storage, tmp_path: Path) -> None:
    directory = fetch_capsule(archive, tmp_path / "cache")
    (directory / "config.json").write_bytes(b"{ }")
    assert contents(fetch_capsule(archive, tmp_path / "cache", again=True))["config.json"] == b"{}"
    (directory / "manifest.json").write_bytes(b'{"files": {}}')
    fetch_capsule(archive, tmp_path / "cache")
    assert (directory / "manifest.json").read_bytes() == archive.read("capsule/manifest.json")
    (directory / "config.json").unlink()
    assert contents(fetch_capsule(archive, tmp_path / "cache"))["config.json"] == b"{}"


def test_a_copy_is_not_hashed_at_each_start(archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes, in each worker; whoever loads them knows which were found intact before."""
    hashed: list[Path] = []
    monkeypatch.setattr("pipeline.capsule._sha256", lambda path: hashed.append(path) or "")
    first = fetch_capsule(archive, tmp_path / "cache")
    assert fetch_capsule(archive, tmp_path / "cache") == first
    assert hashed == []


def test_nothing_is_left_behind(archive: Storage, tmp_path: Path) -> None:
    put(archive, "capsule/weights.safetensors", bytes(999))
    with pytest.raises(ArchiveError, match=r"weights\.safetensors was altered"):
        fetch_capsule(archive, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_of_several_workers_one_fetches(archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = Storage.read, []

    def slowly(self: Storage, path: str) -> bytes:
        asked.append(path)
        time.sleep(0.02)
        return read(self, path)

    monkeypatch.setattr(Storage, "read", slowly)
    with ThreadPoolExecutor(4) as workers:
        found = set(workers.map(lambda _: fetch_capsule(archive, tmp_path / "cache"), range(4)))
    assert len(found) == 1
    assert {name: asked.count(f"capsule/{name}") for name in FILES} == dict.fromkeys(FILES, 1)


def test_where_nothing_can_be_locked_each_worker_fetches(
    archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    assert contents(fetch_capsule(archive, tmp_path / "cache")).keys() > FILES.keys()


def test_a_missing_file(archive: Storage, tmp_path: Path) -> None:
    archive.delete("capsule/config.json")
    with pytest.raises(ArchiveError, match=r"config\.json is missing"):
        fetch_capsule(archive, tmp_path / "cache")


def test_no_capsule_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no model"):
        fetch_capsule(Storage.from_url(str(tmp_path)), tmp_path / "cache")


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/escape.txt", "a/../../b", "", "..\\b"])
def test_names_that_lead_outside(archive: Storage, tmp_path: Path, name: str) -> None:
    write_manifest(archive, {name: "0" * 64})
    with pytest.raises(ArchiveError, match="outside"):
        fetch_capsule(archive, tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": "b"}}'])
def test_a_damaged_manifest(archive: Storage, tmp_path: Path, text: str) -> None:
    put(archive, "capsule/manifest.json", text.encode())
    with pytest.raises(ArchiveError, match="damaged"):
        fetch_capsule(archive, tmp_path / "cache")


def test_the_cache_is_in_the_home_or_where_there_is_none_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own" / "difficmh" / "capsules"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == tmp_path / ".cache" / "difficmh" / "capsules"
    monkeypatch.setenv("HOME", "/dev/null")
    assert default_cache().name == "difficmh-capsules"
