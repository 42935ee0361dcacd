"""Large files are hashed once, and again as soon as anything touched them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import difficmh
from difficmh import capsule, verified
from difficmh.capsule import BUILT_IN, DECODING_FILES, MANIFEST, verify, write_manifest
from difficmh.errors import CapsuleError
from difficmh.verified import RECORD

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sealed capsule of small files, of which the weights count as large and as long unchanged."""
    monkeypatch.setattr(verified, "LARGE", 1000)
    monkeypatch.setattr(verified, "SETTLED", 0)
    for name in DECODING_FILES:
        (tmp_path / name).write_bytes(bytes(2000 if name == WEIGHTS else 10))
    write_manifest(tmp_path)
    return tmp_path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed."""
    names: list[str] = []
    whole = capsule._sha256

    def spy(file: Path) -> str:
        names.append(file.name)
        return whole(file)

    monkeypatch.setattr(capsule, "_sha256", spy)
    return names


def test_an_untouched_large_file_is_read_once(folder: Path, hashed: list[str]) -> None:
    verify(folder, again=False)
    verify(folder, again=False)
    assert hashed.count(WEIGHTS) == 1
    assert hashed.count("config.json") == 2
    verify(folder)
    assert hashed.count(WEIGHTS) == 2


def altered(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[1500] ^= 1
    with file.open("r+b") as stream:
        stream.write(data)


def altered_with_the_old_time(file: Path) -> None:
    before = file.stat()
    altered(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    file.unlink()
    file.write_bytes(bytes(1999) + b"1")


def shortened(file: Path) -> None:
    os.truncate(file, 1500)


@pytest.mark.parametrize("change", [altered, altered_with_the_old_time, replaced, shortened])
def test_altered_bytes_are_noticed(folder: Path, change: Callable[[Path], None]) -> None:
    verify(folder, again=False)
    change(folder / WEIGHTS)
    with pytest.raises(CapsuleError, match=WEIGHTS):
        verify(folder, again=False)
    with pytest.raises(CapsuleError, match=WEIGHTS):
        verify(folder, again=False)


def test_a_touched_file_is_read_again(folder: Path, hashed: list[str]) -> None:
    verify(folder, again=False)
    os.utime(folder / WEIGHTS, (0, 0))
    verify(folder, again=False)
    verify(folder, again=False)
    assert hashed.count(WEIGHTS) == 2


def test_a_file_that_has_just_changed_is_not_remembered(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "SETTLED", 10**15)
    verify(folder, again=False)
    verify(folder, again=False)
    assert hashed.count(WEIGHTS) == 2
    assert not (folder / RECORD).exists()


def test_another_manifest_makes_the_record_void(folder: Path) -> None:
    verify(folder, again=False)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][WEIGHTS]["sha256"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CapsuleError, match=WEIGHTS):
        verify(folder, again=False)


def test_a_copy_is_verified_anew(folder: Path, tmp_path_factory: pytest.TempPathFactory, hashed: list[str]) -> None:
    verify(folder, again=False)
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "copy")
    verify(copy, again=False)
    assert hashed.count(WEIGHTS) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"model.safetensors": 1}', "\udcff"])
def test_a_damaged_record_is_no_record(folder: Path, hashed: list[str], content: str) -> None:
    (folder / RECORD).write_bytes(content.encode(errors="surrogateescape"))
    verify(folder, again=False)
    assert hashed.count(WEIGHTS) == 1


def test_a_folder_that_cannot_be_written_to(folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("difficmh.verified.tempfile.mkstemp", refuse)
    verify(folder, again=False)
    verify(folder, again=False)
    assert hashed.count(WEIGHTS) == 2


def test_the_record_is_no_part_of_the_capsule(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    verify(folder, again=False)
    assert (folder / RECORD).exists()
    write_manifest(folder)
    assert (folder / MANIFEST).read_bytes() == before


def test_the_built_in_capsule_is_always_read(hashed: list[str]) -> None:
    for _ in range(2):
        difficmh.load("lite")
    assert {name: hashed.count(name) for name in DECODING_FILES} == dict.fromkeys(DECODING_FILES, 2)
    assert not (BUILT_IN / "lite" / RECORD).exists()
