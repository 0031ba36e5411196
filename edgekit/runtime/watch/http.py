"""The page for Prometheus over HTTP, where no node_exporter reads files; started on request only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgekit.errors import EdgeKitError
from edgekit.runtime.watch.prometheus import CONTENT_TYPE

_SLOWEST_S = 5.0  # a client that sends nothing is let go
_POLL_S = 0.1  # until a request to end is seen


def serve(page: Callable[[], str], address: str) -> ThreadingHTTPServer:
    """Answers ``GET /metrics`` in threads of its own until ``shutdown`` and ``server_close`` are called.

    Args:
        page: Makes the text.
        address: ``HOST:PORT``; port 0 takes a free one. There is no password: a host other than ``127.0.0.1`` shows
            the page to its whole network.

    Raises:
        EdgeKitError: It is no address, or taken.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise EdgeKitError(f"{address}: not an address to serve on", allowed="HOST:PORT, e.g. 127.0.0.1:9109")

    class Page(BaseHTTPRequestHandler):
        timeout = _SLOWEST_S

        def do_GET(self) -> None:
            body, status = (page().encode(), 200) if self.path == "/metrics" else (b"see /metrics\n", 404)
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: a scrape is no news."""

    try:
        server = ThreadingHTTPServer((host, int(port)), Page)
    except OSError as exc:
        raise EdgeKitError(f"{address}: cannot be served on", found=exc.strerror or exc, fix="free the port") from exc
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="edgekit-watch-http", daemon=True).start()
    return server
