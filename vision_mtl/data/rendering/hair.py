"""Hair and hats of the drawn faces, behind and in front of the head."""

from __future__ import annotations

import numpy as np

from vision_mtl.data.rendering.canvas import Canvas, ellipse_points
from vision_mtl.data.rendering.colours import Colour, shade

BEHIND, ABOVE, HAT = 60.0, 172.0, 195.0  # heights
HAIRLINES = {"bob": -0.3, "bun": -0.56, "curls": -0.5, "long": -0.52, "pigtails": -0.5, "short": -0.52}  # y


def hair_behind(canvas: Canvas, style: str, width: float, hair: Colour) -> None:
    """Draw the hair that the head and the shoulders cover in part."""
    dark = shade(hair, 0.82)
    if style == "long":
        _mantle(canvas, width * 1.24, 1.25, dark)
    elif style == "bob":
        _mantle(canvas, width * 1.26, 0.62, dark)
    elif style == "bun":
        canvas.ellipse((0, -1.06), (0.34, 0.29), hair, ABOVE)
        canvas.line(ellipse_points((0, -0.98), (0.24, 0.16), arc=(200, 340), count=9), 0.03, shade(hair, 0.7), ABOVE)
    elif style == "curls":
        for degrees in np.linspace(150, 390, 13):
            t = np.deg2rad(degrees)
            place = (width * 1.12 * float(np.cos(t)), -0.22 + 0.85 * float(np.sin(t)))
            canvas.ellipse(place, (0.25, 0.25), dark, BEHIND + 40)
    elif style == "pigtails":
        for side in (-1, 1):
            canvas.ellipse((side * (width + 0.26), 0.22), (0.2, 0.5), hair, ABOVE - 40, degrees=-side * 12)
            canvas.ellipse((side * (width + 0.13), -0.2), (0.09, 0.08), (186, 64, 58), ABOVE)
    elif style in ("cap", "hat"):
        _mantle(canvas, width * 1.05, 0.28, dark)


def hair_above(canvas: Canvas, style: str, width: float, turn: float, hair: Colour) -> None:
    """Draw the hair above the forehead, with a few lighter strands."""
    if style not in HAIRLINES:
        return
    line = HAIRLINES[style]
    crown = ellipse_points((0, -0.14), (width * 1.09, 0.86), arc=(175, 365))
    t = np.linspace(1, -1, 9)
    arch = 0.0 if style == "bob" else 0.12
    part = 0.16 * np.exp(-12 * (t - 0.35) ** 2) if style in ("long", "short") else 0.0
    hairline = np.stack((width * 0.98 * t + turn * 0.5, line - arch * (1 - t * t) - part + 0.2 * t**6), 1)
    canvas.polygon([*crown, *hairline], hair, ABOVE)
    for reach in (0.35, 0.62, 0.85):
        strand = ellipse_points((0, -0.1), (width * reach, 0.86 * (0.55 + 0.45 * reach)), arc=(205, 335), count=9)
        strand = strand[strand[:, 1] < line - 0.16]
        if len(strand) > 2:
            canvas.line(strand, 0.03, shade(hair, 1.22 if reach == 0.62 else 0.84), ABOVE)
    if style == "curls":
        for x in np.linspace(-0.8, 0.8, 6):
            canvas.ellipse((width * x, -0.78 + 0.28 * x * x), (0.19, 0.18), hair, ABOVE + 12)
    if style in ("long", "bob"):
        low = 1.1 if style == "long" else 0.58
        for side in (-1, 1):
            lock = [(side * width * 1.04, -0.35), (side * width * 0.86, -0.3), (side * width * 0.98, low)]
            canvas.polygon([*lock, (side * width * 1.22, low)], hair, ABOVE)


def hat(canvas: Canvas, style: str, width: float, turn: float, cloth: Colour) -> None:
    """Draw a cap with a peak or a hat with a brim on the head."""
    crown = ellipse_points((0, -0.36), (width * 1.1, 0.72), arc=(180, 360))
    if style == "cap":
        canvas.polygon(crown, cloth, HAT)
        canvas.line([(0, -1.06), (turn, -0.4)], 0.02, shade(cloth, 0.75), HAT)
        peak = ellipse_points((turn * 2, -0.36), (width * 0.98, 0.2), arc=(0, 180))
        canvas.polygon([*peak, *ellipse_points((turn, -0.36), (width, 0.08), arc=(180, 360))], shade(cloth, 0.78), HAT)
    elif style == "hat":
        canvas.polygon(
            [(-width * 0.98, -0.42), (-width * 0.8, -1.12), (0, -1.06), (width * 0.8, -1.12), (width * 0.98, -0.42)],
            cloth,
            HAT,
        )
        canvas.polygon(
            [(-width, -0.44), (-width * 0.95, -0.62), (width * 0.95, -0.62), (width, -0.44)], shade(cloth, 0.55), HAT
        )
        canvas.ellipse((0, -0.42), (width * 1.55, 0.13), shade(cloth, 0.92), HAT)


def _mantle(canvas: Canvas, width: float, low: float, hair: Colour) -> None:
    """Draw hair that falls to y = `low` on both sides."""
    crown = ellipse_points((0, -0.1), (width, 0.92), arc=(180, 360))
    sides = [(width * 1.06, low * 0.8), (width * 0.9, low), (-width * 0.9, low), (-width * 1.06, low * 0.8)]
    canvas.polygon([*crown, *sides], hair, BEHIND)
