"""The HTTP server of a page for this machine only: fixed files, pictures by number, and requests in JSON.

Security: the server listens on 127.0.0.1 only; the `Host` header must name this machine, which prevents DNS rebinding;
requests from other origins are refused; paths are looked up in a table, never on disk; the page cannot load anything
from elsewhere. One thread handles all requests for the network.

All threads end with the server: one that frees a tensor during Python's shutdown would abort the process.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vision_mtl.core.errors import UserError

ADDRESS = "127.0.0.1"
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
PICTURE = re.compile(r"/images/(\d{1,10})\.png")
TIMEOUT_SECONDS = 60  # an idle connection is closed
GONE = (ConnectionError, TimeoutError, CancelledError)  # the client has disconnected
PAGE = Path(__file__).parent / "page"
ASSETS = {  # path -> file in the package, its media type
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Site:
    """What the server serves: `start` is the page's initial data, `picture` returns a PNG by its number, or None.

    `handlers` map the JSON of a POST to `/api/NAME` to the JSON of the reply. Larger requests than `max_bytes` are
    refused.
    """

    start: Callable[[], Any]
    picture: Callable[[int], bytes | None]
    handlers: Mapping[str, Callable[[Any], Any]]
    max_bytes: int


class Server(ThreadingHTTPServer):
    """Serves a site on 127.0.0.1; port 0 means any free one. Raises `UserError` if the port is not available."""

    daemon_threads = False  # `server_close` waits for the connections' threads

    def __init__(self, site: Site, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise UserError(f"explore.port must be 0 (any free one) to 65535; found {port}.")
        self.site = site
        self.assets = {path: ((PAGE / name).read_bytes(), media) for path, (name, media) in ASSETS.items()}
        self.worker = ThreadPoolExecutor(1)  # one thread for the network
        self.connections: set[socket.socket] = set()  # open ones
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UserError(
                f"explore.port {port} cannot be used: {error.strerror}. Leave it out for a free one."
            ) from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error on the terminal, unless the browser has disconnected."""
        if not isinstance(sys.exc_info()[1], GONE):
            traceback.print_exc()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a new connection in a separate thread."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has ended."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Free the port, close every connection, and join the threads, after the request in progress."""
        for connection in list(self.connections):
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)
        self.worker.shutdown(wait=False, cancel_futures=True)
        super().server_close()
        self.worker.shutdown()


class Refused(Exception):
    """A refused request: its status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vision_mtl", ""
    timeout = TIMEOUT_SECONDS
    server: Server

    def do_GET(self) -> None:
        """Send a file of the page, its initial data or a picture."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Pass a request to its handler and send the reply."""
        self._guarded(self._post)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the errors of http.server as JSON, like all others."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send_json(status, {"error": message or status.phrase})

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal shows errors only."""

    def _guarded(self, respond: Callable[[], None]) -> None:
        try:
            self._check_host()
            respond()
        except Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except UserError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except GONE:
            raise
        except Exception as error:
            traceback.print_exc()
            reason = f"an error in the program, see its terminal: {type(error).__name__}: {error}"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": reason})

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if path in self.server.assets:
            self._send(HTTPStatus.OK, *self.server.assets[path])
        elif path == "/api/start":
            self._send_json(HTTPStatus.OK, self._call(self.server.site.start))
        elif (match := PICTURE.fullmatch(path)) and (body := self.server.site.picture(int(match[1]))) is not None:
            self._send(HTTPStatus.OK, body, "image/png")
        elif path in self._paths():
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} needs a POST request.")
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here; the page is at /.")

    def _post(self) -> None:
        path = urlsplit(self.path).path
        sent = self._body()
        if path not in self._paths():
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such request; the page is at /.")
        handler = self._paths()[path]
        self._send_json(HTTPStatus.OK, self._call(lambda: handler(sent)))

    def _paths(self) -> dict[str, Callable[[Any], Any]]:
        return {f"/api/{name}": handler for name, handler in self.server.site.handlers.items()}

    def _call(self, handler: Callable[[], Any]) -> Any:
        """Return the handler's result from the network's thread.

        Raises `ConnectionError` or `CancelledError` when the server closes.
        """
        try:
            future = self.server.worker.submit(handler)
        except RuntimeError as error:  # the pool is shut down
            raise ConnectionAbortedError("the server closes") from error
        return future.result()

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not OWN_HOST.fullmatch(hosts[0].strip()):
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, f"this page is served at {ADDRESS} and localhost only.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0].strip()}":
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, "requests of another site's page are refused.")

    def _body(self) -> Any:
        """Return the JSON of the request."""
        length, max_bytes = self.headers.get("Content-Length", ""), self.server.site.max_bytes
        if not re.fullmatch(r"\d{1,15}", length):
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a request must state its length.")
        if int(length) > max_bytes:
            self._discard(min(int(length), 4 * max_bytes))  # a browser reads the reply only after it has sent the body
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {int(length) / 1e6:.1f} MB; at most {max_bytes / 1e6:.0f} MB are allowed.",
            )
        data = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a request must be JSON (Content-Type application/json).")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"this is not JSON: {error}.") from error

    def _discard(self, length: int) -> None:
        self.close_connection = True
        while length > 0 and (read := len(self.rfile.read(min(length, 1 << 20)))):
            length -= read

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
        self._send(status, body, "application/json; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, media: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": media, "Content-Length": str(len(body)), **HEADERS}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
