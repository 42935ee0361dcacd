"""Where decoded pictures go: one tar per part of the archive, or files in a folder per part."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Literal

from pipeline.commit import DATA, ShardCommit
from pipeline.keys import Distinct
from pipeline.names import safe_name
from pipeline.storage import Storage

PictureFormat = Literal["jpg", "png", "webp"]
Layout = Literal["webdataset", "files"]


@dataclass(frozen=True)
class PictureStyle:
    """File format of the pictures, and whether they lie in tars (`webdataset`) or as `files`."""

    format: PictureFormat = "jpg"
    layout: Layout = "webdataset"


@dataclass(frozen=True)
class Picture:
    """A reconstruction as a file, the JSON that goes beside it, and the row of the archive it comes from."""

    row: Mapping[str, Any]
    image: bytes
    sidecar: bytes


class PictureOutput:
    """Takes the pictures of one part, in order, as a context manager; what an earlier run left there is removed.

    A part without pictures makes no tar.
    """

    def __init__(self, commit: ShardCommit, storage: Storage, style: PictureStyle) -> None:
        self._commit = commit
        self._storage = storage
        self._style = style
        self._distinct = Distinct()
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._stale = {f"{DATA}/{commit.name}.tar", *storage.list(f"{DATA}/{commit.name}")}

    def __enter__(self) -> PictureOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            for path in sorted(self._stale):
                self._storage.delete(path)

    def add(self, picture: Picture) -> None:
        """Writes the picture and its JSON under its key, or the safe name nearest to it, numbered if it comes again."""
        name = self._distinct(safe_name(picture.row["key"]))
        self._write(f"{name}.{self._style.format}", picture.image)
        self._write(f"{name}.json", picture.sidecar)

    def _write(self, name: str, data: bytes) -> None:
        if self._style.layout == "webdataset":
            self._write_member(name, data)
            return
        path = f"{DATA}/{self._commit.name}/{name}"
        with self._commit.output(path) as file:
            file.write(data)
        self._stale.discard(path)

    def _write_member(self, name: str, data: bytes) -> None:
        """The same members always make the same tar: no times, no owners."""
        if self._tar is None:
            path = f"{DATA}/{self._commit.name}.tar"
            file = self._stack.enter_context(self._commit.output(path))
            self._tar = self._stack.enter_context(_new_tar(file))
            self._stale.discard(path)
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))


def _new_tar(file: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
