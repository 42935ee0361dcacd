"""The model that travels with an archive: copied into it once, and out of it into a directory of each machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.commit import verify
from pipeline.errors import JobError, TransientError
from pipeline.part import ArchiveError
from pipeline.protocols import Decoder, DecoderFactory
from pipeline.storage import Storage

CAPSULE = "capsule"
CAPSULE_MANIFEST = "manifest.json"


def copy_capsule(storage: Storage, capsule: Path) -> None:
    """Copies what the model's manifest lists into the output once, the manifest last; a capsule that is there is kept.

    Its manifest stands for all its files, gigabytes that are not read back by every run. Raises JobError for a
    directory without a manifest, and where a copy does not read back.
    """
    names = _capsule_files(capsule)
    path = f"{CAPSULE}/{CAPSULE_MANIFEST}"
    if storage.exists(path) and storage.read(path) == (capsule / CAPSULE_MANIFEST).read_bytes():
        return
    storage.delete(path)  # another model's, whose files are replaced now
    for name in [*names, CAPSULE_MANIFEST]:
        _store_file(storage, capsule / name, f"{CAPSULE}/{name}")


def _capsule_files(capsule: Path) -> list[str]:
    """What the manifest lists: just these files are asked for when the model is read."""
    try:
        return sorted(json.loads((capsule / CAPSULE_MANIFEST).read_bytes())["files"])
    except FileNotFoundError as error:
        raise JobError(f"{capsule} is no model capsule: it has no {CAPSULE_MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{capsule} is no model capsule: {CAPSULE_MANIFEST} lists no files") from error


def _store_file(storage: Storage, local: Path, path: str) -> None:
    """Copies a file, unless a run that was interrupted has done so."""
    size, digest = local.stat().st_size, _sha256(local)
    with suppress(FileNotFoundError, TransientError):
        if storage.size(path) == size:
            verify(storage, path, size, digest)
            return
    with storage.atomic_write(path) as file, local.open("rb") as source:
        shutil.copyfileobj(source, file)
    try:
        verify(storage, path, size, digest)
    except TransientError as error:  # the store can be reached: that is not what is wrong
        raise JobError(str(error)) from error


def default_cache() -> Path:
    """Where this machine keeps models: in the user's folder for caches, else in that for temporary files.

    The folder for caches is `XDG_CACHE_HOME`, or `.cache` at home, and may be none that this user can write to.
    """
    with suppress(OSError, RuntimeError):
        caches = os.environ.get("XDG_CACHE_HOME")
        cache = (Path(caches) if caches else Path.home() / ".cache") / "difficmh" / "capsules"
        cache.mkdir(parents=True, exist_ok=True)
        return cache
    return Path(tempfile.gettempdir()) / "difficmh-capsules"


def fetch_capsule(archive: Storage, cache: Path, again: bool = False) -> Path:
    """Copies an archive's capsule below `cache`, checks every file's SHA-256, and returns the directory.

    A copy that is there already, with the archive's manifest, is used: it appeared whole, and gigabytes need not be
    hashed here and once more by whoever loads them. Who finds it damaged asks `again`, which hashes all of it and
    replaces what is not whole. Of several processes of one machine, one fetches and the others wait for it; where they
    cannot, they are safe all the same. Raises ArchiveError where the capsule is missing, incomplete or altered.
    """
    try:
        manifest = archive.read(f"{CAPSULE}/{CAPSULE_MANIFEST}")
    except FileNotFoundError as error:
        raise ArchiveError(f"{archive.path_url(CAPSULE)} holds no model: there is no {CAPSULE_MANIFEST}") from error
    digests = _file_digests(manifest, archive)
    target = cache / hashlib.sha256(manifest).hexdigest()[:16]

    def is_kept() -> bool:
        return (_is_whole if again else _is_complete)(target, manifest, digests)

    if not is_kept():
        with _alone(target):
            if not is_kept():  # unless another process fetched it meanwhile
                _copy(archive, manifest, digests, target)
    return target


def load_codec(archive: Storage, factory: DecoderFactory, device: str, cache: Path) -> Decoder:
    """The codec of an archive's model, kept below `cache`. Raises as `fetch_capsule` does and what `factory` raises."""
    try:
        return factory(str(fetch_capsule(archive, cache)), device)
    except ValueError:  # the copy may have been damaged since it was made
        return factory(str(fetch_capsule(archive, cache, again=True)), device)


def read_config(archive: Storage) -> dict[str, Any]:
    """What the archive's model says about itself in `config.json`, not yet checked against its manifest.

    Raises ArchiveError where it is missing or no object.
    """
    path = f"{CAPSULE}/config.json"
    try:
        config = json.loads(archive.read(path))
    except (FileNotFoundError, ValueError) as error:
        raise ArchiveError(f"{archive.path_url(path)}, the model's configuration, cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ArchiveError(f"{archive.path_url(path)} describes no model")
    return config


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Waits until no other process fetches `target`. Shared file systems that know no locks let everybody in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by a process that is killed
        yield


def _file_digests(manifest: bytes, archive: Storage) -> Mapping[str, str]:
    """File name to SHA-256, from `{"files": {name: {"sha256": digest}}}`; names must stay inside the directory."""
    try:
        digests = {str(name): str(entry["sha256"]) for name, entry in json.loads(manifest)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{archive.path_url(CAPSULE)}/{CAPSULE_MANIFEST} is damaged: {error!r}") from error
    for name in digests:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
            raise ArchiveError(f"{archive.path_url(CAPSULE)}/{CAPSULE_MANIFEST} names a file outside it: {name!r}")
    return {name: digest for name, digest in digests.items() if name != CAPSULE_MANIFEST}


def _copy(archive: Storage, manifest: bytes, digests: Mapping[str, str], target: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        for name, digest in digests.items():
            _fetch_file(archive, name, digest, fresh / name)
        (fresh / CAPSULE_MANIFEST).write_bytes(manifest)
        _publish(fresh, target, manifest, digests)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fetch_file(archive: Storage, name: str, digest: str, local: Path) -> None:
    path = f"{CAPSULE}/{name}"
    local.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(path) as source, local.open("wb") as file:
            shutil.copyfileobj(source, file)
    except FileNotFoundError as error:
        raise ArchiveError(f"{archive.path_url(path)} is missing from the archive's model") from error
    if _sha256(local) != digest:
        raise ArchiveError(f"{archive.path_url(path)} was altered: its SHA-256 is not the one in {CAPSULE_MANIFEST}")


def _publish(fresh: Path, target: Path, manifest: bytes, digests: Mapping[str, str]) -> None:
    """Renames the copy into place, unless another process did so meanwhile; a damaged older copy goes first."""
    if target.exists() and not _is_whole(target, manifest, digests):
        shutil.rmtree(target, ignore_errors=True)
    try:
        fresh.rename(target)
    except OSError as error:
        if not _is_whole(target, manifest, digests):
            raise ArchiveError(f"cannot keep a copy of the archive's model in {target}") from error


def _is_complete(directory: Path, manifest: bytes, digests: Mapping[str, str]) -> bool:
    """Whether all files are there, and the archive's own manifest, which they are held against when they are loaded."""
    with suppress(OSError):
        files = all((directory / name).is_file() for name in digests)
        return files and (directory / CAPSULE_MANIFEST).read_bytes() == manifest
    return False


def _is_whole(directory: Path, manifest: bytes, digests: Mapping[str, str]) -> bool:
    """The same, with the SHA-256 of each file."""
    if not _is_complete(directory, manifest, digests):
        return False
    return all(_sha256(directory / name) == digest for name, digest in digests.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
