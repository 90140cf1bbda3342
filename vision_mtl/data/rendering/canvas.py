"""A canvas: shapes with a colour and a height, and one light that shades them all.

A shape is drawn in its own colour and in a fourth channel, its height above the background. At the end the heights are
smoothed into a relief, and each pixel is as bright as the relief is turned towards the light of the image.
"""
# H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from vision_mtl.data.rendering.colours import Colour

SIDE = 96  # pixels of a picture
FINE = 2  # objects are drawn at twice the size, then averaged down
SOLID = 50.0  # height from which a pixel belongs to the object, not to the background
SHADING = 0.034  # brightness per height that the relief rises over a pixel
SHADES = (-0.42, 0.26)  # limits of the shading
GRAIN = 0.02  # of the camera's noise, relative to the brightness
FALLOFF = 0.12  # what is nearer to the light is brighter by this share at the image's edge
GRAIN_SEED = 3
Point = tuple[float, float]  # x to the right, y down; an object spans about [-1, 1]
Points = Sequence[Point] | np.ndarray  # (n, 2)


@dataclass(frozen=True)
class Light:
    """Where the light of an image comes from: (x, y) is a unit vector in the image, y up is negative."""

    x: float
    y: float
    strength: float  # 1: sun or lamp, less: overcast
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor of RGB


def random_light(
    random: np.random.Generator, strength: float = 1.0, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Light:
    """Return a light from above, from the left or from the right."""
    angle = random.uniform(0.35, 1.1) * (1 if random.random() < 0.5 else -1)  # radians from straight above
    return Light(float(np.sin(angle)), -float(np.cos(angle)), strength, tint)


@dataclass(frozen=True)
class Pose:
    """Maps an object's coordinates to pixels: `scale` and `centre` are in halves of the image's side."""

    scale: float = 1.0
    centre: Point = (0.0, 0.0)
    degrees: float = 0.0
    mirrored: bool = False
    stretch: float = 1.0  # wider by this factor, lower by its inverse

    def matrix(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ((2, 2) matrix, (2,) offset) from points in rows to sixteenths of a pixel, `side` pixels an image."""
        angle = np.deg2rad(self.degrees)
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        x, y = (-self.stretch if self.mirrored else self.stretch), 1 / self.stretch
        half = side * 8.0
        turn = np.array([[cos * x, sin * x], [-sin * y, cos * y]]) * (self.scale * half)
        return turn, (np.asarray(self.centre) + 1) * half

    @property
    def upright(self) -> Pose:
        """The same scale and place without tilt: for a body under a tilted head."""
        return replace(self, degrees=0.0)

    @property
    def plain(self) -> Pose:
        """The same scale, place and tilt, neither mirrored nor stretched: for what stands behind an object."""
        return replace(self, mirrored=False, stretch=1.0)


class Canvas:
    """Pixels (H, W, 4) uint8 to draw on: RGB, and the height above the background."""

    def __init__(self, pixels: np.ndarray, pose: Pose) -> None:
        self.pixels = pixels
        self.matrix, self.offset = pose.matrix(pixels.shape[0])
        self.unit = pose.scale * pixels.shape[0] / 2  # pixels

    def polygon(self, points: Points, colour: Colour, height: float = 0.0) -> None:
        """Draw a filled polygon."""
        cv2.fillPoly(self.pixels, [self._place(points)], (*colour, height), cv2.LINE_AA, shift=4)

    def polygons(self, shapes: Sequence[Points] | np.ndarray, colour: Colour, height: float = 0.0) -> None:
        """Draw several polygons of one colour, which do not overlap."""
        cv2.fillPoly(self.pixels, [self._place(points) for points in shapes], (*colour, height), cv2.LINE_AA, shift=4)

    def ellipse(
        self, centre: Point, radii: Point, colour: Colour, height: float = 0.0, *, degrees: float = 0.0
    ) -> None:
        """Draw a filled ellipse, rotated clockwise by `degrees`."""
        self.polygon(ellipse_points(centre, radii, degrees), colour, height)

    def line(self, points: Points, width: float, colour: Colour, height: float = 0.0) -> None:
        """Draw an open line; `width` is in the object's coordinates."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.pixels, [self._place(points)], False, (*colour, height), thickness, cv2.LINE_AA, shift=4)

    def _place(self, points: Points) -> np.ndarray:
        return (np.asarray(points, float) @ self.matrix + self.offset).astype(np.int32)


def object_canvas(scene: np.ndarray, pose: Pose) -> Canvas:
    """Return a canvas to draw an object on, in front of `scene` (SIDE, SIDE, 4) uint8."""
    return Canvas(cv2.resize(scene, (SIDE * FINE, SIDE * FINE), interpolation=cv2.INTER_LINEAR), pose)


def brightened(pixels: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pixels (H, W, C) uint8 times one factor (H, W) float32 for each channel."""
    return cv2.multiply(pixels, cv2.merge(factors), dtype=cv2.CV_8U)


def lit(
    canvas: Canvas, light: Light, random: np.random.Generator, *, texture: float = 0.0, shadow: float = 0.0
) -> np.ndarray:
    """Return the image (SIDE, SIDE, 3) uint8 in the light.

    `texture` is the relative strength of the fine pattern on the object, `shadow` that of its shadow on the wall.
    """
    small = cv2.resize(canvas.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    height = cv2.extractChannel(small, 3).astype(np.float32)
    solid = np.minimum(height / SOLID, 1.0)
    bright = _relief(height, light) * solid + 1.0
    if shadow:
        bright -= _wall_shadow(solid, light, shadow * light.strength)
    across, down = _falloff()
    bright += across * (FALLOFF * light.x) + down * (FALLOFF * light.y)
    bright += _grain(random) * (GRAIN + solid * texture)
    return brightened(cv2.cvtColor(small, cv2.COLOR_RGBA2RGB), [bright * factor for factor in light.tint])


def _relief(height: np.ndarray, light: Light) -> np.ndarray:
    """Return the shading (H, W): how much the smoothed heights are turned towards the light."""
    smooth = cv2.blur(height, (3, 3)) * 0.4 + cv2.blur(cv2.blur(height, (9, 9)), (9, 9))
    across, down = cv2.Sobel(smooth, -1, 1, 0, scale=0.125), cv2.Sobel(smooth, -1, 0, 1, scale=0.125)
    rise = (across * light.x + down * light.y) * (-SHADING * light.strength)
    return np.clip(rise, *SHADES)


def _wall_shadow(solid: np.ndarray, light: Light, strength: float) -> np.ndarray:
    """Return how much darker the background is where the object keeps the light away, (H, W)."""
    shift = np.array([[1, 0, -9 * light.x], [0, 1, -7 * light.y]], np.float32)
    shaded = cv2.blur(cv2.warpAffine(solid, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), (7, 7))
    return shaded * (1 - solid) * strength


@cache
def _falloff() -> tuple[np.ndarray, np.ndarray]:
    """Return the (1, W) and (H, 1) coordinates in [-1, 1]: what is nearer to the light is brighter."""
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
    return ramp[None, :], ramp[:, None]


@cache
def _grain_tiles() -> np.ndarray:
    """Return (4, 2 SIDE, 2 SIDE) noise of standard deviation 0.5, slightly smoothed: drawn once, cut at random."""
    noise = np.random.default_rng(GRAIN_SEED).normal(size=(4, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(tile, (0, 0), 0.6) for tile in noise])
    return smooth * (0.5 / smooth.std())


def _grain(random: np.random.Generator) -> np.ndarray:
    tile, top, left = random.integers(0, (4, SIDE, SIDE))
    return _grain_tiles()[tile, top : top + SIDE, left : left + SIDE]


@cache
def _circle(arc: Point, count: int) -> np.ndarray:
    t = np.deg2rad(np.linspace(*arc, count))
    return np.stack((np.cos(t), np.sin(t)), 1)


def ellipse_points(
    centre: Point, radii: Point, degrees: float = 0.0, arc: Point = (0.0, 360.0), count: int = 25
) -> np.ndarray:
    """Return (count, 2) points along an ellipse, or along an arc of it (degrees, clockwise from the right)."""
    points = _circle(arc, count) * radii
    if degrees:
        a = np.deg2rad(degrees)
        cos, sin = float(np.cos(a)), float(np.sin(a))
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return points + centre


def rounded(points: Points, rounds: int = 2, cut: float = 0.2) -> np.ndarray:
    """Return the closed polygon with its corners cut (Chaikin): each round replaces a corner by two points.

    `cut` is the share of an edge that is cut at each of its ends.
    """
    found = np.asarray(points, float)
    for _ in range(rounds):
        after = np.roll(found, -1, 0)
        found = np.stack(((1 - cut) * found + cut * after, cut * found + (1 - cut) * after), 1).reshape(-1, 2)
    return found
