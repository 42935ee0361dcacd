"""Downloads over http against a real server on this machine, with and without ranges."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from difficmh.errors import CapsuleError
from difficmh.sd21 import fetch as fetching
from difficmh.sd21.fetch import Fetcher
from difficmh.sd21.http_stream import open_http
from difficmh.sd21.sources import Source
from tests.difficmh.sd21.fake_server import DATA, SHA


class Handler(BaseHTTPRequestHandler):
    """`/ranges` continues, `/whole` does not, `/endless` states no size, `/garbage` is no http, all else is missing."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.path == "/ranges" else 0
        if self.path == "/garbage":
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        if self.path not in ("/ranges", "/whole", "/endless"):
            self.send_error(404)
            return
        self.server.starts.append(start)  # type: ignore[attr-defined]
        self.send_response(206 if start else 200)
        if self.path == "/ranges":
            self.send_header("Accept-Ranges", "bytes")
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setattr(fetching, "OVERLAP", 100)
    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        running.starts = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: HTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


@pytest.mark.parametrize(("path", "starts"), [("ranges", [0, 4900]), ("whole", [0])])
def test_a_download_is_continued_where_the_server_can(
    tmp_path: Path, server: HTTPServer, path: str, starts: list[int]
) -> None:
    (tmp_path / "file.partial").write_bytes(DATA[:5000])
    found = Fetcher(tmp_path, open_http).fetch(Source(address(server, path), SHA, len(DATA)), "file")
    assert found.path.read_bytes() == DATA
    assert server.starts == starts  # type: ignore[attr-defined]


def test_a_server_that_states_no_size_needs_a_stated_hash(tmp_path: Path, server: HTTPServer) -> None:
    fetcher = Fetcher(tmp_path, open_http)
    with pytest.raises(CapsuleError, match="does not say how large it is"):
        fetcher.fetch(Source(address(server, "endless")), "file")
    assert fetcher.fetch(Source(address(server, "endless"), SHA), "file").size == len(DATA)


def test_what_is_not_there_and_who_does_not_answer_are_errors_of_ours(tmp_path: Path, server: HTTPServer) -> None:
    with pytest.raises(CapsuleError, match="404"):
        Fetcher(tmp_path, open_http).fetch(Source(address(server, "missing")), "file")
    with pytest.raises(CapsuleError, match="was not fetched"):
        Fetcher(tmp_path, open_http).fetch(Source("http://127.0.0.1:1/file"), "file")


@pytest.mark.parametrize("path", ["with blank", "garbage"])
def test_what_is_no_http_is_an_error_of_ours(tmp_path: Path, server: HTTPServer, path: str) -> None:
    with pytest.raises(CapsuleError, match="cannot be had"):
        Fetcher(tmp_path, open_http).fetch(Source(address(server, path)), "file")


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    for url in ("file:///etc/hostname", "s3://bucket/model.ckpt"):
        with pytest.raises(CapsuleError, match="cannot be opened here"):
            Fetcher(tmp_path, open_http).fetch(Source(url), "file")
