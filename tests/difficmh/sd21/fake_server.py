"""A URL opener for tests that counts what is read, and may break or not be seekable."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

DATA = bytes(range(256)) * 50
SHA = hashlib.sha256(DATA).hexdigest()
URL = "https://example.org/model.ckpt"


@dataclass
class Server:
    """Gives `data` for any URL."""

    data: bytes = DATA
    breaks_at: int | None = None
    seekable: bool = True
    read: int = 0

    @contextmanager
    def __call__(self, url: str) -> Iterator[IO[bytes]]:
        yield Stream(self)


class Stream(io.BytesIO):
    def __init__(self, server: Server) -> None:
        super().__init__(server.data)
        self.server = server

    def seek(self, offset: int, whence: int = 0) -> int:
        if not self.server.seekable:
            raise ValueError("cannot seek a stream")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        stop = self.server.breaks_at
        if stop is not None and self.tell() >= stop:
            raise ConnectionResetError("connection lost")
        chunk = super().read(size if stop is None or size is None else min(size, stop - self.tell()))
        self.server.read += len(chunk)
        return chunk
