"""Members of a tar, read strictly from a stream of any length in memory of one member.

The standard library's `tarfile` takes a damaged header in the middle, or a file that stops between two members, for the
end of the archive, reads extension headers of any size into memory, and reads only the first of several gzip members
joined together. For a corpus each of these loses images in silence, so the members are walked here; single headers are
still parsed by `tarfile.TarInfo`.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeAlias

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENSION_HEADER = 1 << 20
"""Bytes of one pax or long-name header: real ones take a few hundred."""

Kind: TypeAlias = Literal["file", "folder", "link", "sparse file", "device"]

_READ_BUFFER = 1 << 18
_SKIP_BYTES = 1 << 20
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_OTHER_COMPRESSION = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


class TarDamage(ValueError):
    """The rest of a tar cannot be read: damaged, cut, or none at all. `member` is the name it happened in, or empty."""

    def __init__(self, message: str, member: str = "") -> None:
        super().__init__(message)
        self.member = member


@dataclass
class Member:
    """A member of a tar. Its content, `size` bytes, can be read until the next member is asked for.

    Only files have content here.
    """

    name: str
    size: int
    kind: Kind
    _stream: _Stream
    _left: int

    def read(self, size: int | None = None) -> bytes:
        """The next `size` bytes of the content, or all that is left. Raises TarDamage where the tar ends before."""
        count = self._left if size is None else min(size, self._left)
        self._left -= count
        return self._stream.take(count, self.name)

    def skip(self) -> None:
        """Pass what has not been read and the padding after it."""
        self._stream.skip(self._left + -self.size % BLOCK, self.name)
        self._left = 0


def read_members(file: BinaryIO) -> Iterator[Member]:
    """The members of a tar or gzipped tar in order; several tars joined together are read as one.

    Raises TarDamage after the last good member where the rest is damaged, cut or lacks its end mark, and passes on what
    `file.read` raises. All of `file` is read, so that a gzip's checksum is verified too.
    """
    stream = _Stream(file)
    extension: dict[str, str] = {}
    ended = False
    while block := stream.block():
        if ended := not any(block):
            continue
        info = _parsed(block, stream)
        if info.type in (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME):
            extension |= _extension(info, stream)
            continue
        if info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            stream.skip(info.size + -info.size % BLOCK, info.name)
            continue
        member = _member(info, extension, stream)
        extension = {}
        yield member
        member.skip()
    if not ended:
        raise TarDamage("the tar ends without its end mark: it may have been cut" if stream.offset else "empty file")


def _parsed(block: bytes, stream: _Stream) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except tarfile.HeaderError as error:
        raise TarDamage(f"not a tar header at byte {stream.offset - BLOCK}: {stream.kind or error}") from error
    if info.size < 0:
        raise TarDamage(f"negative size at byte {stream.offset - BLOCK}")
    return info


def _member(info: tarfile.TarInfo, extension: dict[str, str], stream: _Stream) -> Member:
    name = extension.get("path", info.name)
    size = int(extension.get("size", info.size))
    has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
    sparse = info.type == tarfile.GNUTYPE_SPARSE or any(field.startswith("GNU.sparse") for field in extension)
    if info.type == tarfile.GNUTYPE_SPARSE:
        _skip_sparse_map(info, stream)
        size = info.size
    stored = size if has_content else 0
    return Member(name, stored, "sparse file" if sparse else _kind(info), stream, stored)


def _kind(info: tarfile.TarInfo) -> Kind:
    if info.isreg():
        return "file"
    if info.isdir():
        return "folder"
    return "link" if info.issym() or info.islnk() else "device"


def _skip_sparse_map(info: tarfile.TarInfo, stream: _Stream) -> None:
    """Old GNU sparse files: further blocks of their map follow while a flag says so."""
    more = stream.last_block[482]
    while more:
        more = stream.take(BLOCK, info.name)[504]


def _extension(info: tarfile.TarInfo, stream: _Stream) -> dict[str, str]:
    """What a pax or long-name header says about the next member."""
    if info.size > MAX_EXTENSION_HEADER:
        raise TarDamage(f"extension header of {info.size} bytes")
    content = stream.take(info.size, info.name)
    stream.skip(-info.size % BLOCK, info.name)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(content.split(b"\0")[0])}
    return _pax_records(content)


def _pax_records(content: bytes) -> dict[str, str]:
    records = {}
    position = 0
    while position < len(content) and content[position]:
        match = _PAX_RECORD.match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or end <= match.end() or end > len(content):
            raise TarDamage("damaged pax header")
        records[_text(match[2])] = _text(content[match.end() : end - 1])
        position = end
    if not re.fullmatch(r"\d{1,20}", records.get("size", "0"), re.ASCII):
        raise TarDamage("damaged pax header: size")
    return records


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


class _Stream:
    """Exact reads from a plain or gzipped file, with the position for messages."""

    def __init__(self, file: BinaryIO) -> None:
        buffered = io.BufferedReader(_Raw(file), _READ_BUFFER)
        start = buffered.peek(6)[:6]
        gzipped = start.startswith(b"\x1f\x8b")
        self._file: io.BufferedIOBase = gzip.GzipFile(fileobj=buffered) if gzipped else buffered
        foreign = [name for magic, name in _OTHER_COMPRESSION.items() if start.startswith(magic)]
        self.kind = f"compressed by {foreign[0]}, only gzip is read" if foreign else ""
        self.offset = 0
        self.last_block = b""

    def block(self) -> bytes:
        """The next block, or nothing at the end."""
        self.last_block = self._read(BLOCK, "")
        if 0 < len(self.last_block) < BLOCK:
            raise TarDamage(f"the tar ends inside a header, at byte {self.offset}: {self.kind or 'cut, or no tar'}")
        return self.last_block

    def take(self, count: int, member: str) -> bytes:
        data = self._read(count, member)
        if len(data) < count:
            raise TarDamage(f"the tar ends inside {member}: {len(data)} of {count} bytes", member)
        return data

    def skip(self, count: int, member: str) -> None:
        while count:
            count -= len(self.take(min(count, _SKIP_BYTES), member))

    def _read(self, count: int, member: str) -> bytes:
        try:
            data = self._file.read(count)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TarDamage(f"damaged gzip after byte {self.offset} of the tar: {error}", member) from error
        self.offset += len(data)
        return data


class _Raw(io.RawIOBase):
    """Any object with `read`, as `BufferedReader` wants it; leaves closing to the owner of the file."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)
