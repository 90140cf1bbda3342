"""The pictures of a report, small enough to travel within its page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

WIDTH, HEIGHT = 900, 2700  # pixels at most
BYTES = 200_000  # a picture of a page of 1.5 MB with four of them, a third of it for base64
QUALITIES = 85, 75, 65, 50  # of JPEG, the first that fits; the last if none does
DPI = 150  # of the plots' PNG


@dataclass(frozen=True)
class Plate:
    """One picture: `inline` is of media type `kind` and stands in the page, `file` is written to `path`."""

    title: str
    caption: str
    path: str
    kind: str
    inline: bytes
    file: bytes


def plot_plate(figure: Figure, name: str, title: str, alt: str) -> Plate:
    """A plot: SVG in the page, PNG beside it. No date, and ids by hash: the same figure gives the same bytes."""
    vector, pixels = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(pixels, format="png", dpi=DPI, metadata={"Software": None})
    return Plate(title, alt, f"figures/{name}.png", "image/svg+xml", vector.getvalue(), pixels.getvalue())


def read_plates(pictures: Sequence[Mapping[str, Any]]) -> tuple[list[Plate], list[str]]:
    """Pictures of `title`, `caption` and `path`, reduced; and a warning for each that cannot be read."""
    plates, missing = [], []
    for number, picture in enumerate(pictures, 1):
        try:
            with Image.open(picture["path"]) as image:
                kind, data = reduced(image)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            missing.append(f"the picture {picture['title']!r} is left out: {type(error).__name__} on reading its file")
            continue
        path = f"figures/picture-{number}-{slug(picture['title'])}.{kind.removeprefix('image/').replace('jpeg', 'jpg')}"
        plates.append(Plate(picture["title"], picture["caption"], path, kind, data, data))
    return plates, missing


def slug(text: str) -> str:
    """Letters, digits and hyphens of the text, for the name of a file; may be "x" alone."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def reduced(image: Image.Image) -> tuple[str, bytes]:
    """The media type and bytes of the picture on white: a palette PNG or a JPEG, whichever is smaller."""
    rgba = image.convert("RGBA")
    rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    rgb.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    palette = _encoded(rgb.quantize(256, dither=Image.Dither.NONE), format="PNG", optimize=True)
    for quality in QUALITIES:
        jpeg = _encoded(rgb, format="JPEG", quality=quality, optimize=True)
        if len(jpeg) <= BYTES:
            break
    return min(("image/png", palette), ("image/jpeg", jpeg), key=lambda found: len(found[1]))


def _encoded(image: Image.Image, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, **options)
    return data.getvalue()
