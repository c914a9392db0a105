"""A server on this machine that a test may make cut, stall, lie and redirect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Serves what `server.files` has; `server.trouble` may answer a request instead."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.requests.append((name, self.headers.get("Range")))
        if self.server.trouble(self, name):
            self.close_connection = True
            return
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
        else:
            self.serve(content)

    def serve(self, content: bytes, end: int | None = None) -> None:
        """Send the range that is asked for, and stop at byte `end`."""
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:end])

    def log_message(self, *args: object) -> None:
        pass


Trouble = Callable[[Handler, str], bool]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Any]:
    """Serve files by name."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.trouble = dict(files), [], lambda handler, name: False
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.stop = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
