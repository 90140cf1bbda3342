"""A canvas in the object's coordinates, with a random background and uneven light.

Everything that a linear model on pixels could use is random and independent of the class: colours, position, size,
tilt, mirroring, background and light. Colours are dark as often as light, so that all classes have nearly the same mean
image. Only the shape depends on the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 96  # pixels of a picture
FINE = 2  # drawn at twice the size, then averaged down
LUMA = (0.299, 0.587, 0.114)  # brightness of RGB, ITU-R BT.601
CONTRAST = 60.0  # of 255, between the brightness of neighbouring parts
Colour = Sequence[float] | np.ndarray  # RGB in [0, 255]
Point = tuple[float, float]  # x to the right, y down; the object spans about [-1, 1]


class Canvas:
    """An image to draw on, with a random pose: scale in `scales` of half the image, tilt up to `tilt` degrees."""

    def __init__(
        self, random: np.random.Generator, scales: tuple[float, float] = (0.62, 0.95), tilt: float = 12.0
    ) -> None:
        self.random = random
        side = SIDE * FINE
        self.pixels = background(random, side)
        scale = random.uniform(*scales) * side / 2
        angle = np.deg2rad(random.uniform(-tilt, tilt))
        mirror = random.choice((-1.0, 1.0))
        stretch = random.uniform(0.9, 1.1)  # taller or wider
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.matrix = scale * turn @ np.diag([mirror * stretch, 1 / stretch])
        slack = max(0.0, side / 2 - scale * 0.85)
        self.centre = side / 2 + random.uniform(-slack, slack, 2)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Draw a filled polygon."""
        cv2.fillPoly(self.pixels, [self._place(points)], tuple(float(c) for c in colour), cv2.LINE_AA, shift=4)

    def ellipse(self, centre: Point, radii: Point, colour: Colour, degrees: float = 0.0) -> None:
        """Draw a filled ellipse, rotated clockwise by `degrees`."""
        self.polygon(ellipse_points(centre, radii, degrees), colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw an open line; `width` is in the object's coordinates."""
        thickness = max(1, round(width * float(np.sqrt(abs(np.linalg.det(self.matrix))))))
        placed, rgb = [self._place(points)], tuple(float(c) for c in colour)
        cv2.polylines(self.pixels, placed, False, rgb, thickness, cv2.LINE_AA, shift=4)

    def finish(self) -> np.ndarray:
        """Return the image as (SIDE, SIDE, 3) uint8, with light and grain."""
        small = cv2.resize(self.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        light = smooth_field(self.random, SIDE, 2, 1) * 0.7 + 0.65  # 0.65 to 1.35
        grain = self.random.normal(0, 4, small.shape)
        return np.clip(small * light + grain, 0, 255).astype(np.uint8)

    def _place(self, points: Sequence[Point]) -> np.ndarray:
        placed = np.asarray(points, float) @ self.matrix.T + self.centre
        return np.round(placed * 16).astype(np.int32)  # 4 fractional bits


def background(random: np.random.Generator, side: int) -> np.ndarray:
    """Return (side, side, 3) uint8: soft colours with a few random shapes."""
    cells, contrast = int(random.integers(2, 7)), random.uniform(0.3, 0.9)
    soft = (smooth_field(random, side, cells, 3) - 0.5) * contrast
    pixels = np.ascontiguousarray((soft * 255 + 128).astype(np.uint8))
    for _ in range(random.integers(2, 7)):
        colour = tuple(random_colour(random).tolist())
        centre = random.uniform(0, side, 2)
        if random.random() < 0.5:
            points = centre + random.normal(0, side / 6, (int(random.integers(3, 6)), 2))
            cv2.fillPoly(pixels, [points.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            end = centre + random.normal(0, side / 2, 2)
            ends = tuple(centre.astype(int).tolist()), tuple(end.astype(int).tolist())
            cv2.line(pixels, *ends, colour, int(random.integers(1, side // 12)), cv2.LINE_AA)
    return pixels


def smooth_field(random: np.random.Generator, side: int, cells: int, channels: int) -> np.ndarray:
    """Return (side, side, channels) float32 in [0, 1]: random values on a coarse grid, interpolated."""
    coarse = random.random((cells, cells, channels), np.float32)
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    return field.reshape(side, side, channels)


def random_colour(random: np.random.Generator) -> np.ndarray:
    """Return (3,) RGB of any hue and saturation, dark as often as light, so that the mean is mid-grey."""
    hue, saturation, value = random.uniform(0, 180), random.uniform(20, 200), random.uniform(60, 250)
    pixel = np.array([[[hue, saturation, value]]]).astype(np.uint8)  # (1, 1, 3)
    colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
    return colour if random.random() < 0.5 else 255 - colour


def contrasting_colour(random: np.random.Generator, colour: Colour) -> np.ndarray:
    """Return (3,) RGB: a random colour that is clearly darker or lighter than `colour`."""
    while True:
        other = random_colour(random)
        if abs(float(np.dot(other - np.asarray(colour), LUMA))) > CONTRAST:
            return other


def shade(colour: Colour, factor: float) -> np.ndarray:
    """Return the colour (3,) darker (factor below 1) or lighter, in [0, 255]."""
    return np.clip(np.asarray(colour) * factor, 0, 255)


def ellipse_points(centre: Point, radii: Point, degrees: float = 0.0, arc: Point = (0.0, 360.0)) -> list[Point]:
    """Return points along an ellipse, or along an arc of it (degrees, clockwise from the right)."""
    t = np.deg2rad(np.linspace(*arc, 33))
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    a = np.deg2rad(degrees)
    placed = np.stack((centre[0] + x * np.cos(a) - y * np.sin(a), centre[1] + x * np.sin(a) + y * np.cos(a)), axis=1)
    return [(float(px), float(py)) for px, py in placed]
