from __future__ import annotations

import errno
import hashlib
import io
import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.capsule import copy_capsule, default_cache, fetch_capsule
from pipeline.errors import JobError
from pipeline.explanations import reaching
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


@pytest.fixture
def output(tmp_path: Path) -> Storage:
    """An archive without a model."""
    return Storage.from_url(str(tmp_path / "output"))


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
    first = fetch_capsule(archive, tmp_path / "cache")
    hashed: list[Path] = []
    monkeypatch.setattr("pipeline.capsule._sha256", lambda path: hashed.append(path) or "")
    assert fetch_capsule(archive, tmp_path / "cache") == first
    assert hashed == []


def test_nothing_is_left_behind(archive: Storage, tmp_path: Path) -> None:
    put(archive, "capsule/weights.safetensors", bytes(999))
    with pytest.raises(ArchiveError, match=r"weights\.safetensors was altered"):
        fetch_capsule(archive, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_of_several_workers_one_fetches(archive: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, asked = Storage.open, []

    def slowly(self: Storage, path: str) -> BinaryIO:
        asked.append(path)
        time.sleep(0.02)
        return opened(self, path)

    monkeypatch.setattr(Storage, "open", slowly)
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


def write_capsule(directory: Path) -> Path:
    (directory / "licences").mkdir(parents=True)
    names = ("config.json", "weights.safetensors", "licences/CODEC")
    for name in names:
        (directory / name).write_bytes(name.encode() * 10)
    (directory / "manifest.json").write_text(json.dumps({"files": {name: {} for name in names}}))
    return directory


def test_the_capsule_is_copied_once_with_its_manifest_last(output: Storage, tmp_path: Path) -> None:
    capsule = write_capsule(tmp_path / "capsule")
    copy_capsule(output, capsule)
    names = ["config.json", "licences/CODEC", "manifest.json", "weights.safetensors"]
    assert output.list("capsule") == [f"capsule/{name}" for name in names]
    assert all(output.read(f"capsule/{name}") == (capsule / name).read_bytes() for name in names)
    before = output.scan("capsule")
    copy_capsule(output, capsule)
    assert output.scan("capsule") == before


def test_a_capsule_that_is_there_is_not_read_back(
    output: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsule = write_capsule(tmp_path / "capsule")
    copy_capsule(output, capsule)
    read, asked = Storage.read, []
    monkeypatch.setattr(Storage, "read", lambda self, path: asked.append(path) or read(self, path))
    copy_capsule(output, capsule)
    assert asked == ["capsule/manifest.json"]


def test_a_capsule_that_another_one_began_to_replace_is_written_again(
    output: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsule, other = write_capsule(tmp_path / "capsule"), write_capsule(tmp_path / "other")
    (other / "config.json").write_bytes(b"of the other")
    (other / "manifest.json").write_text('{"files": {"config.json": {}}}')
    copy_capsule(output, capsule)
    write = Storage.atomic_write

    def killed(self: Storage, path: str) -> AbstractContextManager[BinaryIO]:
        if path.endswith("manifest.json"):
            raise KeyboardInterrupt
        return write(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            copy_capsule(output, other)
    assert output.read("capsule/config.json") == b"of the other"
    copy_capsule(output, capsule)
    assert output.read("capsule/config.json") == (capsule / "config.json").read_bytes()


def test_a_half_copied_capsule_is_completed(output: Storage, tmp_path: Path) -> None:
    capsule = write_capsule(tmp_path / "capsule")
    with output.atomic_write("capsule/config.json") as file:
        file.write(b"other")
    copy_capsule(output, capsule)
    assert output.read("capsule/config.json") == (capsule / "config.json").read_bytes()


def test_what_the_manifest_lists_is_copied_and_nothing_else(output: Storage, tmp_path: Path) -> None:
    capsule = write_capsule(tmp_path / "capsule")
    for name in ("notes.txt", ".hidden"):
        (capsule / name).write_bytes(b"x")
    (capsule / "manifest.json").write_text('{"files": {"config.json": {}, ".hidden": {}}}')
    copy_capsule(output, capsule)
    assert (tmp_path / "output" / "capsule" / ".hidden").read_bytes() == b"x"
    assert output.list("capsule") == ["capsule/config.json", "capsule/manifest.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_manifest_without_files_is_none(output: Storage, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(JobError, match=r"no model capsule: manifest\.json lists no files"):
        copy_capsule(output, tmp_path)


def test_a_directory_without_manifest_is_no_capsule(output: Storage, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no model capsule"):
        copy_capsule(output, tmp_path)


def test_large_files_do_not_go_through_memory(output: Storage, tmp_path: Path) -> None:
    size = 40 << 20
    capsule = write_capsule(tmp_path / "capsule")
    (capsule / "weights.safetensors").write_bytes(bytes(size))
    write_manifest(Storage.from_url(str(tmp_path)), {"weights.safetensors": hashlib.sha256(bytes(size)).hexdigest()})
    tracemalloc.start()
    try:
        copy_capsule(output, capsule)
        fetched = fetch_capsule(output, tmp_path / "cache")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (fetched / "weights.safetensors").stat().st_size == size
    assert most < size / 4


def test_a_copy_that_does_not_read_back_is_no_copy(
    output: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "open", lambda self, path: io.BytesIO(b"something else"))
    with pytest.raises(JobError, match=r"^\S+ does not read back"), reaching(output.url):
        copy_capsule(output, write_capsule(tmp_path / "capsule"))
    assert not output.exists("capsule/manifest.json")
