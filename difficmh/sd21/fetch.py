"""Fetching the files of a preset: once, whole, checked, and continued where it was interrupted.

    hub://…  ─► huggingface_hub: commit, size, SHA-256, URL ─┐
    URL      ────────────────────────────────────────────────┴─► opener ─► NAME.partial ─┐
    path     ──────────────────────────── size, SHA-256 ◄────────────────────────────────┘
             (checked where it lies, not copied)   └─► NAME ─► fetched.json

What a source does not state of size, SHA-256 and revision is recorded on the first fetch and demanded afterwards. This
module opens no URL itself: the caller passes an `Opener`, such as `open_http` of `http_stream.py` or `fsspec.open`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from difficmh.errors import CapsuleError
from difficmh.sd21.hub import Hub, HuggingFaceHub, RemoteFile, parse_hub
from difficmh.sd21.sources import SHA256, Source

Opener = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a URL for reading; the stream should be seekable, so that a download can be continued."""

RECORD = "fetched.json"
CHUNK = 4 << 20
OVERLAP = 1 << 20
"""Bytes of a partial file that are compared with the source before it is continued: the source may have changed."""

SPARE = 64 << 20
"""Bytes that stay free on the disk."""


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched or found, and checked. `location` names the revision that it really came from."""

    path: Path
    location: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Fetcher:
    """Fetches sources into a folder.

    `opener` is needed for all but local files, also for those of a hub, which says only where they are; `hub` is the
    Hugging Face one by default.
    """

    folder: Path
    opener: Opener | None = None
    hub: Hub | None = None

    def fetch(self, source: Source, name: str) -> Fetched:
        """The file of a source, from `folder / name` where it was fetched before.

        Raises CapsuleError where the source cannot be had, was interrupted (fetch again to continue), differs from what
        it states or from what it was at the first fetch, or does not fit on the disk.
        """
        if source.sha256 is not None and not SHA256.fullmatch(source.sha256):
            raise CapsuleError(f"{source.sha256!r} is no SHA-256: 64 lower-case hexadecimal digits")
        try:
            if "://" not in source.location:
                return check(Path(source.location), source)
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._remote(source, name)
        except OSError as error:
            hint = "the disk is full" if error.errno == errno.ENOSPC else "fetch again to continue"
            raise CapsuleError(f"{source.location} was not fetched ({error}); {hint}") from error

    def _remote(self, source: Source, name: str) -> Fetched:
        wanted, target = self._with_record(source), self.folder / name
        if target.is_file() and wanted.sha256 is not None:
            return _check_earlier(target, wanted)
        target.parent.mkdir(parents=True, exist_ok=True)
        url = source.location
        if url.startswith("hub://"):
            url, wanted = self._of_hub(wanted)
        fresh, wanted = self._download(url, wanted, target)
        found = replace(_check_fresh(fresh, wanted), path=target)
        self._record(source.location, found)
        os.replace(fresh, target)
        return found

    def _download(self, url: str, source: Source, target: Path) -> tuple[Path, Source]:
        if self.opener is None:
            raise CapsuleError(f"{source.location} is a URL, and nothing was given that opens it")
        partial = target.with_name(f"{target.name}.partial")
        with self.opener(url) as stream:
            size = _size(stream, source)
            require_space(self.folder, (size or 0) - _length(partial))
            _continue(stream, partial, size)
        return partial, replace(source, size=size)

    def _of_hub(self, source: Source) -> tuple[str, Source]:
        """The URL of a hub's file, and the source with all that the hub says of it.

        Raises CapsuleError where that contradicts the source: it would show only after the whole download.
        """
        repository, revision, path = parse_hub(source.location)
        described = (self.hub or HuggingFaceHub()).describe(repository, revision, path)
        _check_described(source, described)
        revision = described.revision or revision
        location = f"hub://{repository}{f'@{revision}' if revision else ''}/{path}"
        return described.url, Source(location, source.sha256 or described.sha256, source.size or described.size)

    def _with_record(self, source: Source) -> Source:
        """The source with what its first fetch found, where it does not state that itself."""
        entry = self.records().get(source.location)
        if entry is None:
            return source
        sha256, size = source.sha256 or entry["sha256"], source.size or entry["size"]
        return Source(entry["location"], sha256, size)

    def records(self) -> dict[str, dict[str, Any]]:
        """Location to revision, SHA-256 and size of what was fetched into the folder. Raises CapsuleError."""
        try:
            records: dict[str, dict[str, Any]] = json.loads((self.folder / RECORD).read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CapsuleError(f"{self.folder / RECORD} is damaged: {error}") from error
        return records

    def _record(self, location: str, found: Fetched) -> None:
        entry = {name: value for name, value in asdict(found).items() if name != "path"}
        records = self.records()
        if records.get(location) != entry:
            fresh = self.folder / f"{RECORD}.partial"
            fresh.write_text(json.dumps(records | {location: entry}, indent=1) + "\n")
            os.replace(fresh, self.folder / RECORD)


def check(path: Path, source: Source) -> Fetched:
    """Size and SHA-256 of a file, held against those of the source. Raises CapsuleError, also for a missing file."""
    if not path.is_file():
        raise CapsuleError(f"there is no file {path}")
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise CapsuleError(f"{path} has {size:,} bytes, not {source.size:,}")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if source.sha256 is not None and sha256 != source.sha256:
        raise CapsuleError(f"{path} has SHA-256 {sha256}, not {source.sha256}")
    return Fetched(path, source.location, sha256, size)


def require_space(folder: Path, size: int) -> None:
    """Raises CapsuleError where `size` more bytes do not fit on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if size > 0 and free < size + SPARE:
        raise CapsuleError(f"{folder} has {free / 1e9:.1f} GB free, and {(size + SPARE) / 1e9:.1f} GB are needed")


def _check_described(source: Source, described: RemoteFile) -> None:
    for what, wanted, there in (("bytes", source.size, described.size), ("SHA-256", source.sha256, described.sha256)):
        if wanted is not None and there is not None and wanted != there:
            raise CapsuleError(f"{source.location}: the hub has another file, {what} {there}, not {wanted}")


def _size(stream: IO[bytes], source: Source) -> int | None:
    """Bytes of the source, None where only its SHA-256 is known.

    Raises CapsuleError where neither is: a download that ends early could not be told from a whole one.
    """
    try:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except (OSError, ValueError) as error:
        if source.size is None and source.sha256 is None:
            hint = "give #sha256=DIGEST after its location"
            raise CapsuleError(f"{source.location} does not say how large it is: {hint}") from error
        return source.size
    if source.size is not None and size != source.size:
        raise CapsuleError(f"{source.location} has {size:,} bytes, not {source.size:,}")
    return size


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _continue(stream: IO[bytes], partial: Path, size: int | None) -> None:
    """Appends what a partial file lacks, or starts it anew where it does not belong to the stream.

    Without a size, the stream is read to its end, whatever that is: the hash decides.
    """
    done, end = _length(partial), sys.maxsize if size is None else size
    mode = "ab" if 0 < done <= end and _agrees(stream, partial, done) else "wb"
    if mode == "wb":
        done = 0
        if stream.tell():
            stream.seek(0)
    with partial.open(mode) as file:
        while done < end and (chunk := stream.read(min(CHUNK, end - done))):
            file.write(chunk)
            done += len(chunk)
    if size is not None and done < size:
        raise CapsuleError(f"interrupted after {done:,} of {size:,} bytes: fetch again to continue")


def _agrees(stream: IO[bytes], partial: Path, done: int) -> bool:
    """Whether the last bytes of the partial file are those of the stream, which then stands at the file's end."""
    start = max(0, done - OVERLAP)
    try:
        stream.seek(start)
    except (OSError, ValueError):
        return False
    with partial.open("rb") as file:
        file.seek(start)
        expected = file.read()
    found = b""
    while len(found) < len(expected) and (chunk := stream.read(len(expected) - len(found))):
        found += chunk
    return found == expected


def _check_earlier(file: Path, source: Source) -> Fetched:
    """Checks a file that an earlier fetch brought."""
    try:
        return check(file, source)
    except CapsuleError as error:
        raise CapsuleError(f"{error}: remove it to fetch it again") from error


def _check_fresh(fresh: Path, source: Source) -> Fetched:
    """Checks a complete download. One with other contents is removed, or it would be continued for ever."""
    try:
        return check(fresh, source)
    except CapsuleError as error:
        fresh.unlink(missing_ok=True)
        raise CapsuleError(f"{source.location} arrived corrupt and was removed: {error}") from error
