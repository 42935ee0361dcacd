"""Opening http and https addresses so that a download can be continued: a stream that asks for ranges.

The standard library does it. Addresses of object stores are the business of whoever has a client for them: `Fetcher`
takes any opener, and `jobs/fetch_model.py` has one for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import IO, Any, cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from difficmh.errors import CapsuleError

TIMEOUT = 60.0
"""Seconds without any byte after which a download counts as interrupted."""

PARTIAL_CONTENT = 206


@contextmanager
def open_http(url: str) -> Iterator[IO[bytes]]:
    """Opens an address for reading; the stream is seekable where the server states a size and answers ranges.

    Raises CapsuleError for other schemes, OSError where the server does not answer as wanted.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise CapsuleError(f"{url} cannot be opened here: give a local file, an http(s) or a hub:// address")
    with HttpRanges(url) as stream:
        yield cast(IO[bytes], stream)


class HttpRanges(io.RawIOBase):
    """Bytes at an address. A seek costs nothing until the next read, which asks for the rest from there."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._response = self._ask(0)
        self._size: int | None = self._response.length
        self._ranges = self._response.headers.get("Accept-Ranges", "").lower() == "bytes"
        self._at = self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size is not None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Raises OSError where the size is not known, or for a place that the server does not offer to start at."""
        if self._size is None:
            raise OSError(f"{self._url} does not state its size")
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        target = max(starts[whence] + offset, 0)
        if not self._ranges and target not in (0, self._at, self._size):
            raise OSError(f"{self._url} can be read from its start only")
        self._position = target
        return target

    def readinto(self, buffer: Any) -> int:
        if self._size is not None and self._position >= self._size:
            return 0
        if self._position != self._at:
            self._response.close()
            self._response, self._at = self._ask(self._position), self._position
        try:
            count = self._response.readinto(buffer)
        except HTTPException as error:
            raise OSError(f"the connection broke: {error!r}") from error
        self._at += count
        self._position = self._at
        return count

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()

    def _ask(self, start: int) -> HTTPResponse:
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            response: HTTPResponse = urlopen(Request(self._url, headers=headers), timeout=TIMEOUT)
        except HTTPException as error:  # an address with a blank, say, or an answer that is no http
            raise OSError(f"{self._url} cannot be had: {error!r}") from error
        if start and response.status != PARTIAL_CONTENT:
            response.close()
            raise OSError(f"{self._url} was asked for from byte {start} and came from its start")
        return response
