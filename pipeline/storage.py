"""URL to objects: read, stream, list, and write whole or not at all, on local disk or any object store.

The one module that repeats requests (`retry.py`): the libraries' own retries are turned off, so that a failing store
costs one budget, not the product of three.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, cast

from pipeline.addresses import without_query
from pipeline.errors import JobError, TransientError
from pipeline.file_systems import (
    FileSystem,
    can_be_listed,
    check_bucket,
    connect,
    first_entry,
    is_local,
    mistyped_scheme,
    named_host,
    object_size,
    object_tag,
    protocols,
)
from pipeline.range_reader import RangeReader
from pipeline.retry import PATIENT, Retry

READ_BUFFER = 8 * 2**20
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
"""Stores where an upload appears whole or not at all; elsewhere it goes to a temporary name and is renamed."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or a user's share of it, that has no room."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object: path relative to the storage, size in bytes, and a tag that changes with its content."""

    path: str
    size: int
    etag: str


@dataclass(frozen=True)
class Storage:
    """The objects under one URL. Picklable: the connection is made at first use, in the process that uses it.

    Paths are relative to `url` and use `/`. Transient errors are retried; what remains is raised as it came, to be
    judged by `errors.decide`. `options` go to fsspec (`{"key": …, "secret": …, "endpoint_url": …}`).
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry: Retry = PATIENT

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, Any] | None = None, retry: Retry = PATIENT) -> Storage:
        """Storage under `url`: a local path, `file://`, `s3://` or any scheme fsspec knows.

        A local path is made absolute here, as workers have other working directories. Raises JobError for a URL
        that names nothing: an empty one, or a scheme alone.
        """
        scheme, mark, rest = url.partition("://")
        if not (rest.strip("/") if mark else scheme):
            raise JobError(f"{url!r} names no folder and no bucket")
        if mistyped := mistyped_scheme(url):
            raise JobError(f"{url!r} is no URL: is {mistyped}:// meant?")
        if "://" not in url:
            url = os.path.abspath(os.path.expanduser(url))
        return cls(url.rstrip("/") or "/", dict(options or {}), retry)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "options", "retry")}

    @cached_property
    def _target(self) -> tuple[FileSystem, str]:
        return connect(self.url, self.options)

    @property
    def _fs(self) -> FileSystem:
        return self._target[0]

    def _full(self, path: str) -> str:
        root = self._target[1].rstrip("/")
        return f"{root}/{path}" if path else root

    def path_url(self, path: str) -> str:
        """The full URL of `path`."""
        return f"{self.url.rstrip('/')}/{path}"

    def holds(self, other: Storage) -> bool:
        """Whether `other` is this place or lies inside it, whatever their URLs and links on a local disk are called."""
        (inner_store, inner), (outer_store, outer) = other._place, self._place
        return inner_store == outer_store and f"{inner}/".startswith(f"{outer.rstrip('/')}/")

    @property
    def _place(self) -> tuple[str, str]:
        """What tells the store from others, and the path there: `s3` and `s3a` are one."""
        files, path = self._target
        if is_local(files):
            return "", os.path.realpath(path)
        scheme = self.url.partition("://")[0]
        return f"{protocols(files)} {named_host(scheme, self.url)}", path

    def info(self, path: str) -> ObjectInfo:
        """Size and tag of `path`; raises FileNotFoundError."""
        return self.retry(lambda: self._info(path))

    def _info(self, path: str) -> ObjectInfo:
        """Asked once, for requests that are repeated as a whole."""
        return self._described(path, self._fs.info(self._full(path)))

    def _described(self, path: str, info: Mapping[str, Any]) -> ObjectInfo:
        return ObjectInfo(path, object_size(info, self.path_url(path)), object_tag(info))

    def check_bucket(self) -> None:
        """Raises FileNotFoundError where there is no bucket; a store without buckets has nothing to check."""
        self.retry(lambda: check_bucket(*self._target))

    def something(self) -> str:
        """The path of something that is here, hidden files apart; empty where there is nothing. One short listing."""
        return self.retry(lambda: first_entry(*self._target))

    def size(self, path: str) -> int:
        """Bytes of `path`; raises FileNotFoundError."""
        return self.info(path).size

    def exists(self, path: str) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def scan(self, prefix: str = "", deep: bool = True) -> list[ObjectInfo]:
        """All objects below the folder `prefix`, sorted by path; hidden ones (unfinished local writes) left out.

        Without `deep` those in folders below it are left out, too, at the price of what is there. Raises JobError for a
        store that cannot be listed.
        """
        if not can_be_listed(self._fs):
            raise JobError(
                f"{self.path_url(prefix)}: folders and archives need a store that can be listed, not http(s)"
            )
        try:
            found = self.retry(lambda: (self._found if deep else self._entries)(self._full(prefix)))
        except FileNotFoundError:
            return []
        start = len(self._full("")) + 1
        infos = (self._described(name[start:], info) for name, info in found.items())
        return sorted((info for info in infos if not _hidden(info.path)), key=lambda info: info.path)

    def _found(self, folder: str) -> dict[str, Any]:
        return cast(dict[str, Any], self._fs.find(folder, detail=True, withdirs=False))

    def _entries(self, folder: str) -> dict[str, Any]:
        entries = self._fs.ls(folder, detail=True)
        return {entry["name"]: entry for entry in entries if entry["type"] != "directory"}

    def list(self, prefix: str = "") -> list[str]:
        """Paths of all objects below the folder `prefix`, sorted."""
        return [info.path for info in self.scan(prefix)]

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` of `path`, the whole object by default.

        Raises TransientError where the store keeps answering with fewer bytes than the object has, as a client does
        not notice by itself, JobError where it sends more than the part that was asked for, and FileNotFoundError.
        """
        return self._read_range(path, start, self.size(path) if end is None else end)

    def _read_range(self, path: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""

        def request() -> bytes:
            data = cast(bytes, self._fs.cat_file(self._full(path), start=start, end=end))
            if len(data) < end - start and len(data) < min(end, self._info(path).size) - start:
                raise TransientError(f"{self.path_url(path)}: {len(data)} bytes came of {end - start}")
            if len(data) > end - start:
                raise JobError(f"{self.path_url(path)}: this server sends whole files only, not the parts of one")
            return data

        return self.retry(request)

    def open(self, path: str, buffer: int = READ_BUFFER) -> BinaryIO:
        """`path` as a buffered binary stream that can seek; ranges are fetched as they are read, each one checked.

        `buffer` bytes are fetched at once from a remote store; 0 fetches what each read asks for, for random access.
        """
        if is_local(self._fs):
            return open(self._full(path), "rb")
        raw = RangeReader(lambda start, end: self.read(path, start, end), self.size(path))
        return cast(BinaryIO, io.BufferedReader(raw, buffer) if buffer else raw)

    @contextmanager
    def atomic_write(self, path: str) -> Iterator[BinaryIO]:
        """A binary file that becomes `path` when the block ends, and leaves no trace when the block raises.

        The bytes are spooled on local disk, so that an upload can be repeated and never shows half an object; its
        size is read back. The file can be read and seeked inside the block.
        """
        spool = self._spool_name(path)
        try:
            with open(spool, "x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                size = os.path.getsize(spool)
            self.retry(lambda: self._publish(spool, path, size))
        except OSError as error:
            if error.errno in FULL and error.filename is None:
                error.filename = os.path.dirname(spool)  # or the message would not say which disk
            raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(spool)

    def _spool_name(self, path: str) -> str:
        """Local: in the folder of `path`, so that renaming it is atomic."""
        folder = tempfile.gettempdir()
        if is_local(self._fs):
            folder = os.path.dirname(self._full(path))
            os.makedirs(folder, exist_ok=True)
        return f"{folder}/.writing-{uuid.uuid4().hex}.tmp"

    def _publish(self, spool: str, path: str, size: int) -> None:
        full = self._full(path)
        if is_local(self._fs):
            if os.path.exists(spool):  # else a try before this one renamed it, and only the question after it failed
                os.replace(spool, full)
        elif OBJECT_STORES & set(protocols(self._fs)):
            self._fs.put_file(spool, full)
        else:
            self._rename_into(spool, full)
        try:
            written = self._info(path).size
        except FileNotFoundError as error:
            raise TransientError(f"{self.path_url(path)} is not there yet, just after it was written") from error
        if written != size:
            raise TransientError(f"{self.path_url(path)}: {written} bytes stored of {size}")

    def _rename_into(self, spool: str, full: str) -> None:
        folder, name = full.rsplit("/", 1)
        self._fs.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{os.path.basename(spool)}"
        self._fs.put_file(spool, temporary)
        self._fs.mv(temporary, full)

    def delete(self, path: str) -> None:
        """Removes `path`; it need not exist."""
        with suppress(FileNotFoundError):
            self.retry(lambda: self._fs.rm_file(self._full(path)))


@dataclass(frozen=True)
class UrlOpener:
    """Opens objects by full URL, with one connection, to the folder of the last one. Picklable."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _roots: dict[str, Storage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def locate(self, url: str) -> tuple[Storage, str]:
        """The storage of the folder of `url`, and the name in it."""
        place, query = without_query(url)
        folder, _, name = place.rpartition("/")
        name += query
        while folder.endswith("/") and not folder.endswith("://"):
            folder, name = folder[:-1], f"/{name}"  # keys of object stores may have two: the folder's own would be lost
        if folder not in self._roots:
            self._roots.clear()  # shards come folder by folder
            self._roots[folder] = Storage.from_url(folder or "/", self.options)
        return self._roots[folder], name

    def open(self, url: str) -> BinaryIO:
        """The object as a buffered binary stream; raises FileNotFoundError."""
        storage, name = self.locate(url)
        return storage.open(name)


def _hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")
