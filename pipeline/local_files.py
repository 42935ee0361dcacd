"""The local disk as a store that `listing.py` can ask, with links to folders followed as a shell follows them."""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any


class LocalFiles:
    """What listing needs of fsspec's local file system, `files`, whose own search passes by links to folders."""

    def __init__(self, files: Any) -> None:
        self._files = files
        self.protocol = files.protocol

    def _strip_protocol(self, url: str) -> str:
        return os.path.normpath(self._files._strip_protocol(url))

    def unstrip_protocol(self, path: str) -> str:
        """Local shards are called by their absolute paths."""
        return path

    def info(self, path: str) -> dict[str, Any]:
        """Of what is there or where a link leads; raises FileNotFoundError. The tag changes with time and size."""
        status = os.stat(path)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        tag = f"{status.st_mtime_ns}-{status.st_size}"
        return {"name": path, "size": status.st_size, "type": kind, "ETag": tag}

    def glob(self, pattern: str, detail: bool) -> dict[str, dict[str, Any]]:
        """What matches, hidden or not. `detail` is as good as given."""
        return self._infos(matching(pattern))

    def find(self, folder: str, detail: bool) -> dict[str, dict[str, Any]]:
        """All files below a folder. `detail` is as good as given."""
        return self._infos(f"{place.rstrip('/')}/{name}" for place, names in folders(folder) for name in names)

    def _infos(self, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {path: self._glimpse(path) for path in paths}

    def _glimpse(self, path: str) -> dict[str, Any]:
        """A link that leads nowhere has no size here: that matters only where its file is wanted."""
        try:
            return self.info(path)
        except OSError:
            return {"name": path, "type": "file"}


def folders(start: str) -> Iterator[tuple[str, list[str]]]:
    """`start` and the folders below, each once, with the names of its files.

    Where several names lead to a folder, it has one without links, if there is any: neither a link to a neighbour nor
    one in a circle makes two shards of one.
    """
    seen: set[str] = set()
    waiting = deque([start])
    while waiting:
        for folder, inner, names in os.walk(waiting.popleft()):
            if (real := os.path.realpath(folder)) in seen:
                inner.clear()
                continue
            seen.add(real)
            inner.sort()
            paths = (os.path.join(folder, name) for name in inner)
            waiting.extend(path for path in paths if os.path.islink(path))
            yield folder, names


def matching(pattern: str) -> Iterator[str]:
    """Paths that match; `**` stands for any number of folders, as `folders` finds them, and at the end for all below.

    Raises ValueError for `**` with more behind it in one component.
    """
    before, deep, after = pattern.partition("/**")
    if not deep:
        yield from glob.iglob(pattern, include_hidden=True)
        return
    if after and not after.startswith("/"):
        raise ValueError(f"{pattern}: ** stands for whole folders")
    for start in filter(os.path.isdir, glob.iglob(before or "/", include_hidden=True)):
        if not after:
            yield start
            continue
        for folder, _ in folders(start):
            yield from matching(glob.escape(folder.rstrip("/")) + after)


def once(paths: Iterable[str]) -> list[str]:
    """Each file once where links to folders lead to it by several paths: that with the fewest of them."""
    places: dict[str, tuple[str, int]] = {}
    best: dict[tuple[str, str], tuple[int, str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in places:
            places[folder] = os.path.realpath(folder), _links(folder)
        real, links = places[folder]
        best[real, name] = min(best.get((real, name), (links, path)), (links, path))
    return [path for _, path in best.values()]


def _links(folder: str) -> int:
    return sum(os.path.islink(place) for place in (PurePath(folder), *PurePath(folder).parents))
