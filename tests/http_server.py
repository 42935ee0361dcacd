"""A plain HTTP server over a folder, for tests of addresses that can be read and not listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class WholeFiles(SimpleHTTPRequestHandler):
    """Answers every request for a part of a file with the whole of it, as plain HTTP servers may. It lists nothing."""

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None: ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of the files in `folder`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(WholeFiles, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
