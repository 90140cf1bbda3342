"""Requests of the tests to the explorer over HTTP, and pictures in the form of its requests and replies."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

from vision_mtl.explorer.server import Server


def send(server: Server, path: str, sent: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
    """Return status, headers and body, JSON decoded, anything else as bytes. Bytes are sent unchanged."""
    data = sent if sent is None or isinstance(sent, bytes) else json.dumps(sent).encode()
    given = ({} if data is None else {"Content-Type": "application/json"}) | (headers or {})
    request = urllib.request.Request(server.url.rstrip("/") + path, data=data, headers=given)
    try:
        reply = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        body = reply.read()
        found = json.loads(body) if reply.headers.get_content_type() == "application/json" else body
        return reply.status, reply.headers, found


def repair(server: Server, image: dict[str, Any], **damage: Any) -> dict[str, Any]:
    status, _, found = send(server, "/api/repair", {"image": image, "damage": damage})
    assert status == 200, found
    return found


def file_of(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def uploaded(pixels: np.ndarray) -> dict[str, str]:
    return {"data": base64.b64encode(file_of(pixels)).decode()}


def pixels_of(picture: str | bytes) -> np.ndarray:
    data = base64.b64decode(picture) if isinstance(picture, str) else picture
    return np.asarray(Image.open(io.BytesIO(data)))


def colourful(seed: int = 0, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
