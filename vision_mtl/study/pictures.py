"""Pictures of a report, reduced so that they can be embedded in its page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

WIDTH, HEIGHT = 900, 2700  # pixels at most
BYTES = 200_000  # limit per picture: four of them, a third larger in base64, keep the page below 1.5 MB
SVG = "image/svg+xml"  # media type of plots
QUALITIES = 85, 75, 65, 50  # of JPEG: the first that fits, else the last
DPI = 300  # of a plot's PNG


@dataclass(frozen=True)
class Plate:
    """One picture: `inline`, of media type `kind`, is embedded in the page; `file` is written to `path`.

    A plot, whose `kind` is SVG, is written beside it as a vector file too.
    """

    title: str
    caption: str
    path: str
    kind: str
    inline: bytes
    file: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> content of the files to write."""
        vector = {str(Path(self.path).with_suffix(".svg")): self.inline} if self.kind == SVG else {}
        return {self.path: self.file, **vector}


def plot_plate(figure: Figure, name: str, title: str, alt: str) -> Plate:
    """Return a plot, as SVG in the page and as PNG in a file; the same figure gives the same bytes."""
    vector, pixels = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # ids would be random
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(pixels, format="png", dpi=DPI, metadata={"Software": None})
    return Plate(title, alt, f"figures/{name}.png", SVG, vector.getvalue(), pixels.getvalue())


def read_plates(pictures: Sequence[Mapping[str, Any]], folder: Path) -> tuple[list[Plate], list[str]]:
    """Return the pictures, given by `title`, `caption` and `path`, reduced; and a warning per unreadable one.

    Paths are relative to `folder`, or absolute.
    """
    plates, missing = [], []
    for number, picture in enumerate(pictures, 1):
        try:
            with Image.open(folder / picture["path"]) as image:
                kind, data = reduced(image)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            missing.append(f"the picture {picture['title']!r} is left out: {type(error).__name__} on reading its file")
            continue
        path = f"figures/picture-{number}-{slug(picture['title'])}.{kind.removeprefix('image/').replace('jpeg', 'jpg')}"
        plates.append(Plate(picture["title"], picture["caption"], path, kind, data, data))
    return plates, missing


def slug(text: str) -> str:
    """Return the text as letters, digits and hyphens, for a file name; "x" if there are none."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def reduced(image: Image.Image) -> tuple[str, bytes]:
    """Return media type and bytes of the picture on white: a palette PNG or a JPEG, whichever is smaller."""
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
