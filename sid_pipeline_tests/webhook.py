"""A local HTTP server that takes alerts, as a chat's incoming webhook does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """Address of a server, the bodies it got, and the status codes that it gives, last first (200 when it has none)."""
    got: list[dict[str, Any]] = []
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            code = codes.pop() if codes else 200
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", "/login")
            self.end_headers()

        def do_GET(self) -> None:  # a page for people, whatever was asked for
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/secret-token", got, codes
    finally:
        server.shutdown()
        server.server_close()
