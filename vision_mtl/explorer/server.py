"""A page on this machine alone: fixed files, pictures by number, and questions in JSON, over Python's own HTTP server.

What keeps it here: it is bound to 127.0.0.1; a request must name this machine as its host (another site's name that was
made to point here does not); one that changes the origin is refused; paths are looked up in a table, never on disk; the
page may load nothing from elsewhere. Questions are answered one at a time, by one thread.

No thread outlives the server: one that frees a tensor while Python ends (by collecting garbage, say) aborts the
process.
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
SILENCE_SECONDS = 60  # a connection that says nothing for so long is closed
GONE = (ConnectionError, TimeoutError, CancelledError)  # nobody waits for the answer any more
PAGE = Path(__file__).parent / "page"
ASSETS = {  # path -> file in the package, its kind
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
    """What is answered: `picture` PNG by number (None: there is none), `start` what a page begins with, `questions`.

    A question takes what was sent and gives what is sent back; both are JSON. One of more than `max_bytes` is refused.
    """

    start: Callable[[], Any]
    picture: Callable[[int], bytes | None]
    questions: Mapping[str, Callable[[Any], Any]]
    max_bytes: int


class Server(ThreadingHTTPServer):
    """Serves a site on 127.0.0.1; port 0 takes a free one. Raises `UserError` if the port cannot be had."""

    daemon_threads = False  # `server_close` waits for the connections' threads

    def __init__(self, site: Site, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise UserError(f"explore.port must be 0 (any free one) to 65535; found {port}.")
        self.site = site
        self.assets = {path: ((PAGE / name).read_bytes(), kind) for path, (name, kind) in ASSETS.items()}
        self.worker = ThreadPoolExecutor(1)  # one network, one at a time
        self.connections: set[socket.socket] = set()  # those that are open
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UserError(
                f"explore.port {port} cannot be used: {error.strerror}. Leave it out for a free one."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no fault; anything else is told on the terminal."""
        if not isinstance(sys.exc_info()[1], GONE):
            traceback.print_exc()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a new connection, in a thread of its own."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has ended."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Leave the port and cut every connection; ends when their threads, and the question at work, have ended."""
        for connection in list(self.connections):
            with suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)
        self.worker.shutdown(wait=False, cancel_futures=True)
        super().server_close()
        self.worker.shutdown()


class Refused(Exception):
    """A request that is not answered: the status, and why in words."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vision_mtl", ""
    timeout = SILENCE_SECONDS
    server: Server

    def do_GET(self) -> None:
        """The page's files, its first facts, a picture."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """A question."""
        self._guarded(self._post)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in JSON like everything else."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send_json(status, {"error": message or status.phrase})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is for faults."""

    def _guarded(self, answer: Callable[[], None]) -> None:
        try:
            self._check_host()
            answer()
        except Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except UserError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except GONE:
            raise
        except Exception as error:
            traceback.print_exc()
            reason = f"a fault of the program, told on its terminal: {type(error).__name__}: {error}"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": reason})

    def _get(self) -> None:
        path = urlsplit(self.path).path
        if path in self.server.assets:
            self._send(HTTPStatus.OK, *self.server.assets[path])
        elif path == "/api/start":
            self._send_json(HTTPStatus.OK, self._asked(self.server.site.start))
        elif (match := PICTURE.fullmatch(path)) and (body := self.server.site.picture(int(match[1]))) is not None:
            self._send(HTTPStatus.OK, body, "image/png")
        elif path in self._paths():
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} is asked by POST.")
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here; the page is at /.")

    def _post(self) -> None:
        path = urlsplit(self.path).path
        sent = self._body()
        if path not in self._paths():
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such question; the page is at /.")
        question = self._paths()[path]
        self._send_json(HTTPStatus.OK, self._asked(lambda: question(sent)))

    def _paths(self) -> dict[str, Callable[[Any], Any]]:
        return {f"/api/{name}": question for name, question in self.server.site.questions.items()}

    def _asked(self, question: Callable[[], Any]) -> Any:
        """What the network's own thread says. Raises `ConnectionError` and `CancelledError` when the server closes."""
        try:
            future = self.server.worker.submit(question)
        except RuntimeError as error:  # it takes no more work
            raise ConnectionAbortedError("the server closes") from error
        return future.result()

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not OWN_HOST.fullmatch(hosts[0].strip()):
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, f"this page answers to {ADDRESS} and localhost alone.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0].strip()}":
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, "another site's page may not ask this one.")

    def _body(self) -> Any:
        """The JSON that was sent."""
        length, most = self.headers.get("Content-Length", ""), self.server.site.max_bytes
        if not re.fullmatch(r"\d{1,15}", length):
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a question must say its length.")
        if int(length) > most:
            self._discard(min(int(length), 4 * most))  # a browser reads the answer only once it has sent its part
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{int(length) / 1e6:.1f} MB are too much for one question; {most / 1e6:.0f} MB are taken.",
            )
        data = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a question must be JSON (Content-Type application/json).")
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

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
