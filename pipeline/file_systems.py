"""What fsspec knows: the file system behind a URL, what it can do, and what it tells about objects.

The one module that imports fsspec.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import JobError

FileSystem: TypeAlias = fsspec.AbstractFileSystem

FEW_KEYS = 100
"""Enough that something is among them which is not hidden."""

_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "Last-Modified", "mtime", "created")
"""What stores call that by which a change shows: hashes first, then times."""


def connect(url: str, options: Mapping[str, Any]) -> tuple[FileSystem, str]:
    """The file system of `url` and the path in it, without caches and without retries of its own.

    A `url` without a scheme is an absolute path on the local disk, whatever is in it.

    Raises ValueError for an unknown scheme and ImportError where its package is missing.
    """
    settings: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False, **options}
    if url.split("://")[0] in ("s3", "s3a"):
        config = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 0}}
        settings["config_kwargs"] = {**config, **settings.get("config_kwargs", {})}
    if "://" not in url:  # not by `url_to_fs`, to which `::` in a path is a chain of file systems
        return LocalFileSystem(**settings), url
    files, path = url_to_fs(url, **settings)
    if hasattr(files, "retries"):
        files.retries = 1
    return files, path


def mistyped_scheme(url: str) -> str:
    """`s3` of `s3:/bucket`, which would be a folder `s3:` on the local disk; empty for anything else."""
    scheme, colon, rest = url.partition(":")
    return scheme if colon and rest[:1] == "/" != rest[1:2] and scheme in fsspec.available_protocols() else ""


def named_host(scheme: str, url: str) -> dict[str, Any]:
    """`host`, and `port` if it is told, where a URL of this scheme names a machine and not a bucket; else nothing."""
    try:
        named = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(url)
    except (ValueError, ImportError):
        return {}  # `connect` has the words for it
    return {name: named[name] for name in ("host", "port") if named.get(name)}


def protocols(files: FileSystem) -> tuple[str, ...]:
    """The schemes of URLs that lead to it."""
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def is_local(files: FileSystem) -> bool:
    """Whether this is a disk of this machine, or what is mounted like one."""
    return isinstance(files, LocalFileSystem)


def can_be_listed(files: FileSystem) -> bool:
    """Whether one can learn what is there: over http(s) the links of a page would be all, if there is one."""
    return not {"http", "https"} & set(protocols(files))


def check_bucket(files: FileSystem, path: str) -> None:
    """Raises FileNotFoundError where there is no bucket, which a search that finds nothing does not tell."""
    if "s3" in protocols(files):
        with suppress(PermissionError):  # to list the whole bucket is not needed
            files.call_s3("list_objects_v2", Bucket=path.partition("/")[0], MaxKeys=1)


def first_entry(files: FileSystem, path: str) -> str:
    """The first of what lies below the folder `path`, relative to it; empty where there is nothing but what is hidden.

    One short listing: of a local disk as far as the first file, of S3 as far as FEW_KEYS.
    """
    root = f"{path.rstrip('/')}/"
    inside = (name.removeprefix(root) for name in _names_below(files, root))
    return next((name for name in inside if name and not name.startswith(".")), "")


def _names_below(files: FileSystem, root: str) -> Iterator[str]:
    if is_local(files):
        for folder, inner, names in os.walk(root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            yield from (os.path.join(folder, name) for name in names if not name.startswith("."))
    elif "s3" in protocols(files):
        bucket, prefix = root.split("/", 1)
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=FEW_KEYS)
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", ()))
        yield from (f"{bucket}/{entry['Prefix']}" for entry in page.get("CommonPrefixes", ()))
    else:
        with suppress(FileNotFoundError):
            yield from files.ls(root.rstrip("/"), detail=False)


def object_tag(info: Mapping[str, Any]) -> str:
    """What changes with an object's content, of all that a store tells about it; empty where it tells no such thing."""
    return str(next((info[name] for name in _TAGS if info.get(name)), "")).strip('"')


def object_size(info: Mapping[str, Any], url: str) -> int:
    """Bytes of the object that the store calls `url`.

    Raises FileNotFoundError for a folder, JobError where the store does not tell the size.
    """
    if info.get("type") == "directory":
        raise FileNotFoundError(f"{url} is a folder")
    if not isinstance(info.get("size"), int):
        raise JobError(f"{url}: its size is not known, so that it cannot be read safely")
    return int(info["size"])
