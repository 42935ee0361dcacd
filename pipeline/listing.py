"""Input URLs to shards: folders, globs and brace ranges on local disk or any object store.

s3://corpus/cam-{000000..000999}.tar    1,000 named shards; it is an error if one is missing
s3://corpus/{day,night}/*.tar           what matches; `*` stops at `/`, `**` does not
s3://corpus/day, photos/                all .tar, .tar.gz and .tgz below the folder
photos.tar, file:///data/photos.bin     a named file, whatever its extension
https://host/cam-{0..9}.tar             named files: over http(s) nothing can be searched

A local file that is called like a pattern, such as `cam[1].tar`, is that file.
"""

from __future__ import annotations

import itertools
import json
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.addresses import public
from pipeline.errors import JobError, Verdict, decide, describe
from pipeline.explanations import explain
from pipeline.file_systems import (
    can_be_listed,
    check_bucket,
    connect,
    is_local,
    named_host,
    object_size,
    object_tag,
)
from pipeline.image_files import named_like_image
from pipeline.local_files import LocalFiles, once
from pipeline.prefetch import requests
from pipeline.records import ShardSource
from pipeline.retry import BRIEF, Retry

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
HOW_TO_PACK = "tar -cf cam.tar --sort=name DIR"
MAX_NAMES = 1_000_000
"""Most names that the braces of one URL may stand for."""

FEW_NAMES = 4
"""Up to so many names of one folder are asked for one by one; beyond, the folder is listed."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})", re.ASCII)
_WILDCARD = re.compile(r"[*?\[]")

Infos = Mapping[str, Mapping[str, Any]]
"""What a file system says about objects, by path."""


class InputError(JobError, ValueError):
    """Input URLs that lead to no shards; the message is one line that says why and what to do."""


def expand(
    urls: Sequence[str], storage_options: Mapping[str, Any] | None = None, retry: Retry = BRIEF
) -> list[ShardSource]:
    """The shards that `urls` stand for, sorted by URL, each once.

    One listing per folder, not one request per shard. `etag` is the store's, or made of size and time of change.
    Raises InputError where a URL is empty, a chain or matches nothing, a named shard is missing, the store cannot be
    listed, or addresses of the web differ only in their queries: those are no part of a shard's name, which outputs are
    called by.
    """
    sources: dict[str, ShardSource] = {}
    stores = _Stores(storage_options or {})
    for url in urls:
        _refuse_odd(url)
        try:
            lister = _Lister(url, stores.of(url), retry)
            found = lister.sources()
        except JobError as error:  # in words already
            raise InputError(str(error)) from error
        except Exception as error:
            if decide(error) is Verdict.REJECT and not isinstance(error, OSError | ValueError | ImportError):
                raise  # not a known kind of trouble with a store: a defect, whose trace is wanted
            raise InputError(explain(error, url)) from error
        if not found:
            pack = f"; pack the pictures there first: {HOW_TO_PACK}" if lister.saw_pictures else ""
            raise InputError(f"{url}: no shards there; folders and wildcards match {', '.join(SHARD_SUFFIXES)}{pack}")
        for source in found:
            if sources.setdefault(source.url, source).address != source.address:
                raise InputError(f"{source.url}: several inputs are called so, and differ only in what is never stored")
    return [sources[url] for url in sorted(sources)]


def expand_braces(url: str) -> Iterator[str]:
    """`{a,b}` and `{000..099}` (padded as written, in steps of one), in any number, also nested.

    Raises InputError for a range that runs backwards and for more than MAX_NAMES names.
    """
    names = _expanded(url)
    yield from itertools.islice(names, MAX_NAMES)
    if next(names, None) is not None:
        raise InputError(f"{url}: stands for more than {MAX_NAMES} names")


def _expanded(url: str) -> Iterator[str]:
    match = _BRACES.search(url)
    if match is None:
        yield url
        return
    for choice in _choices(match[1]):
        yield from _expanded(url[: match.start()] + choice + url[match.end() :])


def _choices(text: str) -> Iterable[str]:
    match = _RANGE.fullmatch(text)
    if match is None:
        return text.split(",")
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise InputError(f"{{{text}}}: the range runs backwards")
    return (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))


def _refuse_odd(url: str) -> None:
    if not url.strip():
        raise InputError(f"{url!r} names no input")
    if "://" in url and "::" in url:
        raise InputError(
            f"{url}: chained addresses (::) are not read; name the shards where they lie, as by s3://bucket/cam.tar, "
            "unpacked where they are in another file (those with :: in their names by their folder or a wildcard)"
        )


class _Stores:
    """The file systems behind URLs: one connection per scheme, as opening one takes longer than listing a folder."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._by_scheme: dict[str, Any] = {}

    def of(self, url: str) -> Any:
        """fsspec's file system for `url`. Raises InputError for an address with a host, which its paths would lose."""
        scheme = url.rpartition("://")[0]
        _refuse_host(scheme, url)
        if scheme not in self._by_scheme:
            store = connect(url, self._options)[0]
            self._by_scheme[scheme] = LocalFiles(store) if is_local(store) else store
        return self._by_scheme[scheme]


def _refuse_host(scheme: str, url: str) -> None:
    """For ftp, webhdfs and their like; a bucket is no host, and an http address is a path as a whole."""
    named = named_host(scheme, url)
    if "host" in named:
        options = json.dumps(named)
        raise InputError(f"{scheme}://{named['host']}: give --storage-options '{options}', and shards as {scheme}:///…")


class _Lister:
    """Finds what one input URL stands for."""

    def __init__(self, url: str, store: Any, retry: Retry) -> None:
        self.url = url
        self.retry = retry
        self._fs = store
        self._is_local = isinstance(store, LocalFiles)
        self.saw_pictures = False
        """Whether images lie among what was looked at, loose."""

    def sources(self) -> list[ShardSource]:
        urls = [self.url] if self._is_there(self._path(self.url)) else expand_braces(self.url)
        paths = [self._path(url) for url in urls]
        patterns = [path for path in paths if self._is_pattern(path)]
        names = [path for path in paths if not self._is_pattern(path)]
        infos: dict[str, Mapping[str, Any]] = {}
        for pattern in patterns:
            infos |= self._matching(pattern)
        if self._is_local:
            infos = {path: infos[path] for path in once(infos)}
        infos |= self._named(names)
        if not infos:
            self._try(check_bucket, self._fs, self._path(self.url))
        return [self._source(path, info) for path, info in self._sized(infos).items()]

    def _path(self, url: str) -> str:
        return str(self._fs._strip_protocol(url))

    def _is_there(self, path: str) -> bool:
        """Whether a local path is that of a file, whatever its name looks like."""
        return self._is_local and os.path.lexists(path)

    def _is_pattern(self, path: str) -> bool:
        name = path if can_be_listed(self._fs) else path.partition("?")[0]  # a web address has a query there
        return _WILDCARD.search(name) is not None and not self._is_there(path)

    def _matching(self, pattern: str) -> Infos:
        if not can_be_listed(self._fs):
            raise InputError(f"{self.url}: wildcards need a store that can be listed; name the shards, as by {{0..9}}")
        found: Infos = self._try(self._fs.glob, pattern, detail=True)
        matches = self._shards({path: info for path, info in found.items() if info["type"] != "directory"})
        for path in found.keys() - matches.keys():
            if found[path]["type"] == "directory":
                matches |= self._below(path)
        return matches

    def _below(self, folder: str) -> Infos:
        """All shards below a folder."""
        found: Infos = self._try(self._fs.find, folder, detail=True)
        return self._shards(found)

    def _shards(self, found: Infos) -> dict[str, Mapping[str, Any]]:
        """Those of the files found that are called like shards."""
        self.saw_pictures = self.saw_pictures or any(map(named_like_image, found))
        return {path: info for path, info in found.items() if _is_shard(path)}

    def _named(self, paths: Sequence[str]) -> Infos:
        """What is found under these names; raises InputError where something is not."""
        folders = defaultdict(list)
        for path in paths:
            folders[posixpath.dirname(path)].append(path)
        found: dict[str, Mapping[str, Any]] = {}
        for folder, members in folders.items():
            is_listed = len(members) > FEW_NAMES and can_be_listed(self._fs) and not self._is_local
            found |= self._listed(folder, members) if is_listed else self._asked(members)
        missing = [path for path in paths if path not in found]
        if missing and len(paths) == 1:
            raise FileNotFoundError(missing[0])
        if missing:
            raise InputError(f"{self.url}: {len(missing)} of {len(paths)} are missing, first {self._full(missing[0])}")
        shards: dict[str, Mapping[str, Any]] = {}
        for path, info in found.items():
            shards |= self._below(path) if info["type"] == "directory" else {path: info}
        return shards

    def _asked(self, paths: Sequence[str]) -> Infos:
        """Those of `paths` that are there, each asked for, some at a time."""
        infos = requests(self._info, paths)
        return {path: info for path, info in zip(paths, infos, strict=True) if info is not None}

    def _info(self, path: str) -> Mapping[str, Any] | None:
        try:
            info: Mapping[str, Any] = self._try(self._fs.info, path)
        except FileNotFoundError as error:
            if not can_be_listed(self._fs):
                _refuse_failure(error.__cause__, self._full(path))
            self._try(check_bucket, self._fs, path)
            return None
        return info

    def _listed(self, folder: str, paths: Sequence[str]) -> Infos:
        try:
            entries = self._try(self._fs.ls, folder, detail=True)
        except FileNotFoundError:
            self._try(check_bucket, self._fs, folder)
            return {}
        by_path = {entry["name"].rstrip("/"): entry for entry in entries}
        return {path: by_path[path] for path in paths if path in by_path}

    def _sized(self, infos: Infos) -> Infos:
        """Where a listing leaves sizes out, they are asked for; raises InputError for what is not there then."""
        unknown = [path for path, info in infos.items() if not isinstance(info.get("size"), int)]
        asked = self._asked(unknown)
        if gone := [path for path in unknown if path not in asked]:
            raise InputError(f"{self._full(gone[0])}: no such file or folder, or a link that leads nowhere")
        return {**infos, **asked}

    def _source(self, path: str, info: Mapping[str, Any]) -> ShardSource:
        address = self._full(path)
        name = public(address)
        private = "" if address == name else address
        return ShardSource(name, object_size(info, address), object_tag(info), private)

    def _full(self, path: str) -> str:
        """One spelling for every shard: an absolute path, or a full URL."""
        return str(self._fs.unstrip_protocol(path))

    def _try(self, call: Any, *arguments: Any, **options: Any) -> Any:
        return self.retry(lambda: call(*arguments, **options))


def _refuse_failure(cause: BaseException | None, address: str) -> None:
    """Raises what happened to a request over http(s), unless a file was missing: fsspec tells all as a missing file."""
    if cause is None or getattr(cause, "status", None) in (404, 410):
        return
    if decide(cause) is Verdict.REJECT:  # such as 400: nothing that it would be told apart from a defect by
        raise InputError(f"{public(address)}: {describe(cause)}") from cause
    raise cause


def _is_shard(path: str) -> bool:
    return path.lower().endswith(SHARD_SUFFIXES) and not posixpath.basename(path).startswith(".")
