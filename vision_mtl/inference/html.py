"""HTML that notebooks show of an object: it loads nothing, and all text is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vision_mtl.study.pictures import reduced
from vision_mtl.viz.bands import shown_bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 90  # of figures in a page: pictures of repairs are then 81 pixels wide
QUALITY = 75  # of JPEG: below it, artefacts appear around letters
LEFT = "text-align:left;vertical-align:top;padding:2px 10px 2px 0"


class Markup(str):
    """Text that is already HTML."""


def escape(value: Any) -> Markup:
    """Return the value as escaped text; `Markup` is returned unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def table(rows: Sequence[Sequence[Any]], heads: Sequence[str] = ()) -> Markup:
    """Return a table of values, with column titles if given."""
    lines = ["<tr>" + "".join(f'<th style="{LEFT}">{escape(head)}</th>' for head in heads) + "</tr>"] if heads else []
    lines += ["<tr>" + "".join(f'<td style="{LEFT}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows]
    return Markup(f"<table>{''.join(lines)}</table>")


def facts(about: Mapping[str, Any]) -> Markup:
    """Return a table of names and values; values of None or "" are left out."""
    return table([(Markup(f"<b>{escape(key)}</b>"), value) for key, value in about.items() if value not in (None, "")])


def image(picture: Image.Image, alt: str) -> Markup:
    """Return a plot as an embedded picture of at most 900 pixels width and 200 kB."""
    return _embedded(*reduced(picture), alt)


def photograph(picture: Image.Image, alt: str) -> Markup:
    """Return photographs as an embedded JPEG: the palette of a plot would show false contours in smooth errors."""
    data = io.BytesIO()
    picture.convert("RGB").save(data, format="JPEG", quality=QUALITY, optimize=True)
    return _embedded("image/jpeg", data.getvalue(), alt)


def _embedded(kind: str, data: bytes, alt: str) -> Markup:
    encoded = base64.b64encode(data).decode()
    return Markup(f'<img style="max-width:100%" alt="{escape(alt)}" src="data:{kind};base64,{encoded}"/>')


def figure_image(figure: Figure) -> Image.Image:
    """Return a matplotlib figure as a picture."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return Image.open(data)


def to_pictures(images: np.ndarray) -> list[Image.Image]:
    """Return images (n, H, W, C), float in [0, 1], as n pictures; of other bands the default ones are shown."""
    images = shown_bands(images)
    bytes_ = np.round(images.clip(0, 1) * 255).astype(np.uint8)
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in bytes_]
