"""The explorer's server: refusals are explained, no other file can be read, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_requests import colourful, file_of, pixels_of, send, uploaded

from vision_mtl.core.errors import UserError
from vision_mtl.explorer import handlers
from vision_mtl.explorer.server import ASSETS, PAGE, Server, Site

OpenPage = Callable[..., Server]


@pytest.fixture(scope="module")
def page(explorable: Path, open_page: OpenPage) -> Server:
    return open_page(explorable)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ([], 400, "image must be"),
        ({"image": {"number": True}, "damage": {}}, 400, "number must be the number of an example"),
        ({"image": {"number": 10**9}, "damage": {}}, 400, "no example of number 1000000000"),
        ({"image": {"data": "no base64!"}, "damage": {}}, 400, "not base64"),
        ({"image": {"data": "aGVsbG8="}, "damage": {}}, 400, "the file cannot be read: not an image"),
        ({"image": {"data": ""}, "damage": {}}, 400, "the file is empty"),
        ("cells", 400, "damage.cells must lie in 0 to 15; found 16 to 16"),
        ("grid", 400, "does not fit an image of 32 x 32"),
        ("tiny", 400, "at least two cells"),
        ("factor", 400, "downsample.factor 64 exceeds"),
        ("typo", 400, "unknown field of damage 'gray'. Did you mean 'grey'"),
        ("name", 400, "unknown pretext of this run 'rotatoin'. Did you mean 'rotation'"),
        ("number", 400, "damage.number must be 0 to 3"),
        ("colour", 400, "this image is grey"),
    ],
)
def test_a_bad_request_gets_an_explanation(page: Server, sent: Any, status: int, words: str) -> None:
    damages = {
        "cells": {"cells": [16]},
        "grid": {"grid": [40, 2], "cells": [0]},
        "tiny": {"grid": [1, 1], "cells": [0]},
        "factor": {"factor": 64},
        "typo": {"gray": True},
        "name": {"name": "rotatoin"},
        "number": {"name": "rotation", "number": 4},
        "colour": {"grey": True},
    }
    if isinstance(sent, str):
        image = np.full((32, 32, 3), 90, np.uint8) if sent == "colour" else colourful()
        sent = {"image": uploaded(image), "damage": damages[sent]}
    found = send(page, "/api/repair", sent)
    assert found[0] == status and words in found[2]["error"]


def test_too_large_a_file_is_refused_with_its_limit(page: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b'{"data": "' + b"A" * (page.site.max_bytes + 10) + b'"}'
    status, _, found = send(page, "/api/open", large)
    assert status == 413 and "at most 32 MB are allowed" in found["error"]
    monkeypatch.setattr(handlers, "MAX_FILE_BYTES", 1000)
    status, _, found = send(page, "/api/open", {"data": "A" * 2000})
    assert status == 400 and "larger than 0 MB" in found["error"]
    monkeypatch.undo()
    monkeypatch.setattr(handlers, "MAX_PIXELS", 1000)
    status, _, found = send(page, "/api/open", uploaded(colourful()))
    assert status == 400 and "32 x 32 pixels exceed 1,000" in found["error"]


def test_an_image_is_opened_by_the_projects_decoder(page: Server) -> None:
    picture = colourful(1, (60, 90))
    status, _, found = send(page, "/api/open", {"data": base64.b64encode(file_of(picture, "WEBP")).decode()})
    assert status == 200 and found["shape"] == [60, 90] and pixels_of(found["picture"]).shape == (32, 32, 3)
    again = send(page, "/api/open", {"data": found["picture"]})[2]
    assert again["picture"] == found["picture"], "an image that was opened is the model's own"


def test_only_this_machines_names_are_answered(page: Server) -> None:
    port = page.server_address[1]
    for host in ("127.0.0.1", "localhost", f"localhost:{port}", "localhost:9", "[::1]:80"):
        assert send(page, "/", headers={"Host": host})[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example", ""):
        status, _, found = send(page, "/api/start", headers={"Host": host})
        assert status == 403 and "localhost only" in found["error"]
    sent = {"image": uploaded(colourful()), "damage": {}}
    assert send(page, "/api/repair", sent, {"Origin": f"http://127.0.0.1:{port}"})[0] == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}"):
        status, _, found = send(page, "/api/repair", sent, {"Origin": origin})
        assert status == 403 and "another site" in found["error"]
    status, _, found = send(page, "/api/repair", sent, {"Content-Type": "text/plain"})  # what a form can send
    assert status == 415 and "application/json" in found["error"]


def test_it_listens_on_this_machine_only(page: Server) -> None:
    assert page.server_address[0] == "127.0.0.1" and page.url.startswith("http://127.0.0.1:")
    with pytest.raises(UserError, match=f"explore.port {page.server_address[1]} cannot be used: .* free one"):
        Server(Site(dict, lambda number: None, {}, 10), page.server_address[1])
    with pytest.raises(UserError, match="65535; found 70000"):
        Server(Site(dict, lambda number: None, {}, 10), 70_000)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.js/../server.py",
        "/server.py",
        "/images/../page.css",
        "/images/0x1.png",
        "/images/-1.png",
        "/images/99999.png",
        "/images/",
        "/..\\..\\secret",
        "/page.css%00.png",
    ],
)
def test_nothing_else_of_the_machine_can_be_read(page: Server, path: str) -> None:
    with socket.create_connection(page.server_address) as line:  # as it is, where urllib would tidy it up
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: line.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 404") and b"root:" not in reply and b"there is nothing here" in reply


def test_other_methods_and_missing_lengths_are_refused_in_json(page: Server) -> None:
    line = http.client.HTTPConnection(*page.server_address)
    for method, path, status in (("GET", "/api/repair", 405), ("PUT", "/", 501), ("POST", "/api/else", 404)):
        line.request(method, path, body=b"{}", headers={"Content-Type": "application/json"})
        reply = line.getresponse()
        assert reply.status == status and json.loads(reply.read())["error"]
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'")
        line.close()
    line.putrequest("POST", "/api/open")
    line.putheader("Transfer-Encoding", "chunked")
    line.endheaders()
    assert line.getresponse().status == 411
    line.close()


def test_the_page_loads_nothing_from_elsewhere(page: Server) -> None:
    for path in ASSETS:
        status, headers, body = send(page, path)
        assert status == 200
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert (
            headers["X-Content-Type-Options"] == "nosniff" and headers["Cross-Origin-Resource-Policy"] == "same-origin"
        )
        outside = re.findall(rb"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", body)
        assert set(outside) <= {b"http://www.w3.org/2000/svg"}, "the namespace of SVG is a name, not an address"
    assert {name for name, _ in ASSETS.values()} == {file.name for file in PAGE.iterdir()}


def test_an_error_is_reported_and_the_page_stays_usable(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(sent: Any) -> Any:
        raise ZeroDivisionError("of nothing")

    site = Site(lambda: {"fine": True}, lambda number: None, {"broken": broken}, 1000)
    with Server(site) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        status, _, found = send(server, "/api/broken", {})
        assert status == 500 and "ZeroDivisionError: of nothing" in found["error"]
        assert send(server, "/api/start")[2] == {"fine": True}
        server.shutdown()
    assert "Traceback" in capfd.readouterr().err


def test_a_closed_server_leaves_no_thread_behind(capfd: pytest.CaptureFixture[str]) -> None:
    """A thread that frees tensors while Python ends would abort the process instead of giving its exit code."""
    started, finish = threading.Event(), threading.Event()

    def slow(sent: Any) -> Any:
        started.set()
        return finish.wait(60)

    before = set(threading.enumerate())
    server = Server(Site(lambda: {}, lambda number: None, {"slow": slow}, 1000))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    lines = [http.client.HTTPConnection(*server.server_address) for _ in range(3)]
    lines[0].request("GET", "/api/start")
    assert lines[0].getresponse().read() == b"{}"  # and stays open, as a browser's does
    for line in lines[1:]:  # one in progress, one waiting
        line.request("POST", "/api/slow", body=b"{}", headers={"Content-Type": "application/json"})
    assert started.wait(60)
    while len(server.connections) < 3:
        time.sleep(0.01)
    server.shutdown()
    closing = threading.Thread(target=server.server_close)
    closing.start()
    assert [line.sock.recv(1) for line in lines] == [b""] * 3  # closed at once, with a request in progress
    finish.set()
    closing.join(60)
    assert set(threading.enumerate()) <= before and not server.connections
    assert capfd.readouterr().err == ""
