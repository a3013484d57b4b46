"""A small OpenAI-compatible server in a thread, for what an endpoint may do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]
"""Status, headers, and a body: text as it is, or a value as JSON."""


def said(text: Any, digest: str | None = None) -> Reply:
    headers = {"X-Foreword-Digest": digest} if digest else {}
    body = {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 3}}
    return 200, headers, body


@contextmanager
def serving(reply: Callable[[dict[str, Any], dict[str, str]], Reply]) -> Iterator[str]:
    """The URL of a server that answers each POST with what `reply` makes of body and headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))
            status, headers, body = reply(asked, {**dict(self.headers), "path": self.path})
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
