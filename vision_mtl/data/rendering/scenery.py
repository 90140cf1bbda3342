"""What is behind an object: a street under a sky, a room, a garden. Drawn at the picture's size, so it is softer."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from vision_mtl.data.rendering import colours
from vision_mtl.data.rendering.canvas import SIDE, Canvas, Light, Pose, brightened, ellipse_points, random_light
from vision_mtl.data.rendering.colours import Colour, mix, pick, shade

REACH = 3.2  # half the width of a street in the object's coordinates: wider than any image


class Weather(NamedTuple):
    """The sky at its top and at the horizon, and the light that it gives."""

    top: Colour
    horizon: Colour
    strength: float
    tint: tuple[float, float, float]


WEATHERS = (
    Weather((66, 124, 200), (178, 210, 236), 1.0, (1.03, 1.0, 0.95)),  # clear
    Weather((92, 148, 210), (200, 222, 238), 0.9, (1.02, 1.0, 0.97)),  # light clouds
    Weather((158, 168, 178), (206, 211, 216), 0.5, (0.95, 0.97, 1.0)),  # overcast
    Weather((112, 140, 184), (248, 208, 156), 1.0, (1.08, 0.98, 0.84)),  # low sun
)


def street(random: np.random.Generator, pose: Pose, ground: float, far: float) -> tuple[np.ndarray, Light]:
    """Return a street (SIDE, SIDE, 4) uint8 in the pose of a vehicle, and its light.

    The vehicle stands at y = `ground`; the road's far edge is at y = `far`.
    """
    weather = WEATHERS[int(random.random() * len(WEATHERS))]
    light = random_light(random, weather.strength, weather.tint)
    canvas = Canvas(_sky(weather), pose.plain)
    if weather.strength > 0.8:
        _clouds(canvas, random, weather)
    horizon = far - random.uniform(0.12, 0.26)
    if random.random() < 0.6:
        _hills(canvas, random, horizon, weather)
    _skyline(canvas, random, horizon, light)
    verge = pick(random, colours.GRASS if random.random() < 0.55 else colours.PAVEMENT)
    _band(canvas, horizon, 3.0, verge)
    road = pick(random, colours.ASPHALT)
    _band(canvas, far - 0.035, far, shade(verge, 0.8))
    _band(canvas, far, 3.0, road)
    _markings(canvas, random, ground, road)
    return _textured(canvas.pixels, random, 0.05), light


def room(random: np.random.Generator, light: Light) -> np.ndarray:
    """Return a wall (SIDE, SIDE, 4) uint8, out of focus; a window is on the side that the light comes from."""
    wall = pick(random, colours.WALLS)
    canvas = Canvas(_gradient(shade(wall, 1.06), shade(wall, 0.88)), Pose())
    side = 1 if light.x > 0 else -1
    if random.random() < 0.4:
        _window(canvas, random, side * random.uniform(0.55, 0.95))
    for place in (-side * random.uniform(0.45, 0.95), side * random.uniform(0.3, 0.9)):
        choice = random.random()
        if choice < 0.3:
            _shelf(canvas, random, place)
        elif choice < 0.55:
            _picture(canvas, random, place)
        elif choice < 0.7:
            _plant(canvas, random, place, light)
    return _blurred(canvas.pixels, random)


def floor_or_sofa(random: np.random.Generator, scene: np.ndarray, level: float) -> np.ndarray:
    """Return a room with what an animal sits on or in front of, from y = `level` of the image downwards."""
    canvas = Canvas(scene, Pose())
    if random.random() < 0.5:
        cloth = pick(random, colours.FABRIC)
        canvas.polygon([(-1.2, level - 0.42), (1.2, level - 0.42), (1.2, 1.2), (-1.2, 1.2)], shade(cloth, 0.86))
        seam = random.uniform(-0.6, 0.6)
        canvas.line([(seam, level - 0.42), (seam, level)], 0.03, shade(cloth, 0.7))
        canvas.polygon([(-1.2, level), (1.2, level), (1.2, 1.2), (-1.2, 1.2)], cloth)
    else:
        wood = pick(random, colours.WOOD)
        canvas.polygon([(-1.2, level - 0.05), (1.2, level - 0.05), (1.2, 1.2), (-1.2, 1.2)], (228, 224, 216))
        canvas.polygon([(-1.2, level), (1.2, level), (1.2, 1.2), (-1.2, 1.2)], wood)
        for y in np.linspace(level + 0.12, 1.1, 4):
            canvas.line([(-1.2, y), (1.2, y)], 0.02, shade(wood, 0.86))
    return _blurred(canvas.pixels, random)


def garden(random: np.random.Generator, light: Light, level: float) -> np.ndarray:
    """Return a garden (SIDE, SIDE, 4) uint8, out of focus: sky, bushes, and grass from y = `level` downwards."""
    weather = WEATHERS[int(random.random() * 2)]
    canvas = Canvas(_sky(weather), Pose())
    top = level - random.uniform(0.5, 1.1)
    for x in np.linspace(-1.2, 1.2, 5):
        _crown(canvas, random, (x + random.uniform(-0.2, 0.2), top + 0.35), random.uniform(0.3, 0.5), light)
    leaves = pick(random, colours.LEAVES)
    canvas.polygon([(-1.2, top + 0.4), (1.2, top + 0.4), (1.2, level), (-1.2, level)], leaves)
    for _ in range(4):
        place = (random.uniform(-1.1, 1.1), random.uniform(top + 0.3, level))
        _crown(canvas, random, place, random.uniform(0.15, 0.35), light)
    canvas.polygon([(-1.2, level), (1.2, level), (1.2, 1.2), (-1.2, 1.2)], pick(random, colours.GRASS))
    return _textured(_blurred(canvas.pixels, random), random, 0.05)


def _sky(weather: Weather) -> np.ndarray:
    return _gradient(weather.top, weather.horizon)


def _gradient(top: Colour, bottom: Colour) -> np.ndarray:
    """Return (SIDE, SIDE, 4) uint8, from one colour to the other at three quarters of the height."""
    ramp = np.minimum(np.linspace(0, 4 / 3, SIDE, dtype=np.float32), 1)[:, None]
    rows = np.asarray((*top, 0), np.float32) * (1 - ramp) + np.asarray((*bottom, 0), np.float32) * ramp
    return cv2.resize(rows[:, None].astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def _textured(pixels: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Return the image with soft patches of light and shade."""
    cells = random.random((12, 12), np.float32) * (2 * strength) + (1 - strength)
    field = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return brightened(pixels, [field] * 4)


def _blurred(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    width = (3, 5, 7)[int(random.random() * 3)]
    return cv2.blur(pixels, (width, width))


def _band(canvas: Canvas, top: float, bottom: float, colour: Colour) -> None:
    canvas.polygon([(-REACH, top), (REACH, top), (REACH, bottom), (-REACH, bottom)], colour)


def _clouds(canvas: Canvas, random: np.random.Generator, weather: Weather) -> None:
    white = mix(weather.horizon, (255, 255, 255), 0.7)
    for _ in range(int(random.random() * 4)):
        x, y, size = random.uniform(-1.6, 1.6), random.uniform(-1.5, -0.5), random.uniform(0.12, 0.26)
        canvas.ellipse((x, y), (size * 2.2, size * 0.5), mix(white, weather.top, 0.25))
        for shift in (-0.9, 0.0, 1.0):
            canvas.ellipse((x + shift * size, y - size * 0.25), (size * 0.9, size * random.uniform(0.4, 0.7)), white)


def _hills(canvas: Canvas, random: np.random.Generator, base: float, weather: Weather) -> None:
    x = np.linspace(-REACH, REACH, 19)
    for share, height in ((0.55, 0.5), (0.3, 0.3)):  # the farther, the more of the sky's colour
        phase, length = random.uniform(0, 6), random.uniform(1.4, 2.6)
        y = base - height * random.uniform(0.5, 1.0) * (0.6 + 0.4 * np.sin(x * length + phase))
        outline = [*zip(x, y, strict=True), (REACH, base), (-REACH, base)]
        canvas.polygon(outline, mix((84, 116, 72), weather.horizon, share))


def _skyline(canvas: Canvas, random: np.random.Generator, base: float, light: Light) -> None:
    """Draw houses, towers, trees and hedges side by side, most of them in town, few in the country."""
    density = random.random()
    x = -2.0 + random.uniform(0, 0.5)
    while x < 2.0:
        kind, width = random.random(), random.uniform(0.35, 0.8)
        if kind > density + 0.25:
            x += width
            continue
        if kind < 0.3 * density:
            _tower(canvas, random, x, base, width)
        elif kind < 0.6 * density:
            _house(canvas, random, x, base, width)
        elif kind < 0.85 * density + 0.15:
            _tree(canvas, random, x + width / 2, base, light)
        else:
            hedge = pick(random, colours.LEAVES)
            canvas.polygon([(x, base), (x, base - 0.2), (x + width, base - 0.2), (x + width, base)], hedge)
        x += width + random.uniform(0.0, 0.15)


def _tower(canvas: Canvas, random: np.random.Generator, x: float, base: float, width: float) -> None:
    wall = pick(random, colours.CONCRETE if random.random() < 0.6 else colours.BRICK)
    height = random.uniform(0.7, 1.7)
    canvas.polygon(_box(x, base - height, width, height), wall)
    columns, rows = max(2, round(width / 0.17)), max(3, round(height / 0.24))
    w, h = width / columns, height / rows
    shapes = [
        _box(x + (c + 0.22) * w, base - height + (r + 0.2) * h, w * 0.56, h * 0.5)
        for r in range(rows - 1)
        for c in range(columns)
    ]
    canvas.polygons(shapes, pick(random, [colours.WINDOW]))


def _house(canvas: Canvas, random: np.random.Generator, x: float, base: float, width: float) -> None:
    wall = pick(random, colours.PLASTER if random.random() < 0.6 else colours.BRICK)
    height, roof = random.uniform(0.4, 0.7), random.uniform(0.2, 0.35)
    canvas.polygon(_box(x, base - height, width, height), wall)
    eaves = base - height
    outline = [(x - 0.05, eaves), (x + width * 0.25, eaves - roof), (x + width * 0.75, eaves - roof)]
    canvas.polygon([*outline, (x + width + 0.05, eaves)], pick(random, colours.ROOF))
    windows = [_box(x + share * width, eaves + height * 0.2, width * 0.2, height * 0.32) for share in (0.14, 0.66)]
    canvas.polygons(windows, colours.WINDOW)
    canvas.polygon(_box(x + width * 0.42, base - height * 0.55, width * 0.16, height * 0.55), (96, 66, 48))


def _tree(canvas: Canvas, random: np.random.Generator, x: float, base: float, light: Light) -> None:
    size = random.uniform(0.28, 0.5)
    canvas.polygon(_box(x - 0.04, base - size * 1.2, 0.08, size * 1.2), colours.BARK)
    _crown(canvas, random, (x, base - size * 1.7), size, light)


def _crown(canvas: Canvas, random: np.random.Generator, centre: tuple[float, float], size: float, light: Light) -> None:
    """Draw leaves: a dark mass and lighter ones on the side of the light."""
    leaves, (x, y) = pick(random, colours.LEAVES), centre
    canvas.ellipse(centre, (size, size * 0.9), shade(leaves, 0.72))
    for reach, factor, radius in ((0.22, 0.95, 0.68), (0.42, 1.18, 0.4)):
        place = (x + light.x * size * reach + random.uniform(-0.03, 0.03), y + light.y * size * reach)
        canvas.ellipse(place, (size * radius, size * radius * 0.85), shade(leaves, factor))


def _markings(canvas: Canvas, random: np.random.Generator, ground: float, road: Colour) -> None:
    """Draw the dashes of a lane in front of the vehicle."""
    y, start = ground + random.uniform(0.22, 0.4), random.uniform(0, 0.9)
    paint = (226, 226, 220) if random.random() < 0.7 else (224, 182, 70)
    dashes = [_box(x + start, y, 0.5, 0.055) for x in np.arange(-REACH, REACH, 0.9)]
    canvas.polygons(dashes, mix(road, paint, 0.85))


def _window(canvas: Canvas, random: np.random.Generator, x: float) -> None:
    width, top = random.uniform(0.3, 0.5), random.uniform(-1.0, -0.7)
    canvas.polygon(_box(x - width, top, 2 * width, 1.1), (240, 238, 232))
    canvas.polygon(_box(x - width + 0.06, top + 0.06, 2 * width - 0.12, 0.98), (204, 224, 240))
    canvas.polygon(_box(x - width + 0.06, top + 0.6, 2 * width - 0.12, 0.44), (140, 166, 120))
    canvas.line([(x, top), (x, top + 1.1)], 0.06, (240, 238, 232))


def _shelf(canvas: Canvas, random: np.random.Generator, x: float) -> None:
    wood = pick(random, colours.WOOD)
    for y in (-0.55, 0.05, 0.65):
        left = x - 0.42
        while left < x + 0.36:
            width, height = random.uniform(0.07, 0.15), random.uniform(0.28, 0.46)
            canvas.polygon(_box(left, y - height, width, height), pick(random, colours.CLOTHES))
            left += width
        canvas.polygon(_box(x - 0.48, y, 0.96, 0.08), wood)


def _picture(canvas: Canvas, random: np.random.Generator, x: float) -> None:
    y, w, h = random.uniform(-0.8, -0.4), random.uniform(0.25, 0.4), random.uniform(0.25, 0.4)
    canvas.polygon(_box(x - w, y - h, 2 * w, 2 * h), pick(random, colours.WOOD))
    canvas.polygon(_box(x - w * 0.82, y - h * 0.82, 1.64 * w, 1.64 * h), (176, 202, 222))
    canvas.polygon(_box(x - w * 0.82, y + h * 0.1, 1.64 * w, 0.72 * h), (110, 140, 86))


def _plant(canvas: Canvas, random: np.random.Generator, x: float, light: Light) -> None:
    y = random.uniform(-0.2, 0.3)
    canvas.polygon([(x - 0.2, y + 0.3), (x + 0.2, y + 0.3), (x + 0.14, y + 0.75), (x - 0.14, y + 0.75)], (172, 98, 66))
    leaf = pick(random, colours.LEAVES)
    for degrees in (-150, -120, -90, -60, -30):
        a = np.deg2rad(degrees + random.uniform(-10, 10))
        centre = (x + 0.3 * float(np.cos(a)), y + 0.2 + 0.4 * float(np.sin(a)))
        bright = 1.0 + 0.25 * (light.x * float(np.cos(a)) + light.y * float(np.sin(a)))
        canvas.polygon(ellipse_points(centre, (0.32, 0.09), float(np.rad2deg(a)), count=13), shade(leaf, bright))


def _box(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
