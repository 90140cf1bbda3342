"""Cars on a street, from the side, in eight body types: the outline, the windows and the bed tell them apart."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from vision_mtl.data.rendering import colours
from vision_mtl.data.rendering.canvas import Canvas, Light, Point, Pose, ellipse_points, lit, object_canvas, rounded
from vision_mtl.data.rendering.colours import Colour, mix, pick, shade
from vision_mtl.data.rendering.scenery import street


class Body(NamedTuple):
    """A body type: the upper outline from the rear bumper to the front (y down), and what stands on it."""

    outline: tuple[Point, ...]
    roof: tuple[int, int]  # the two ends of the roof in the outline; equal: no roof
    pillars: int = 1  # between the windows
    belt: float = -0.1  # lower edge of the windows
    wheel: float = 1.0  # relative size


BODIES: dict[str, Body] = {
    "convertible": Body(
        (
            (-0.95, 0.0),
            (-0.9, -0.09),
            (-0.5, -0.12),
            (-0.3, -0.07),
            (0.2, -0.07),
            (0.5, -0.08),
            (0.9, -0.02),
            (0.96, 0.08),
        ),
        (0, 0),
    ),
    "coupe": Body(
        (
            (-0.95, 0.0),
            (-0.88, -0.11),
            (-0.64, -0.13),
            (-0.2, -0.38),
            (0.08, -0.38),
            (0.42, -0.08),
            (0.88, -0.01),
            (0.96, 0.1),
        ),
        (3, 4),
        pillars=0,
    ),
    "hatchback": Body(
        ((-0.74, 0.0), (-0.7, -0.16), (-0.52, -0.46), (0.06, -0.46), (0.36, -0.1), (0.68, -0.05), (0.76, 0.06)), (2, 3)
    ),
    "pickup": Body(
        ((-0.97, -0.16), (-0.06, -0.16), (-0.03, -0.58), (0.26, -0.58), (0.46, -0.16), (0.9, -0.12), (0.96, -0.02)),
        (2, 3),
        pillars=0,
        belt=-0.16,
        wheel=1.2,
    ),
    "sedan": Body(
        (
            (-0.95, -0.02),
            (-0.92, -0.12),
            (-0.54, -0.13),
            (-0.3, -0.44),
            (0.1, -0.44),
            (0.38, -0.1),
            (0.88, -0.03),
            (0.96, 0.08),
        ),
        (3, 4),
    ),
    "suv": Body(
        ((-0.84, -0.1), (-0.82, -0.3), (-0.72, -0.64), (0.16, -0.64), (0.4, -0.2), (0.8, -0.16), (0.86, -0.04)),
        (2, 3),
        pillars=2,
        belt=-0.22,
        wheel=1.2,
    ),
    "van": Body(
        ((-0.95, 0.0), (-0.95, -0.64), (-0.9, -0.7), (0.48, -0.7), (0.8, -0.16), (0.94, -0.08), (0.96, 0.04)),
        (2, 3),
        pillars=0,
        belt=-0.22,
    ),
    "wagon": Body(
        ((-0.95, 0.0), (-0.94, -0.2), (-0.84, -0.46), (0.14, -0.46), (0.42, -0.1), (0.88, -0.03), (0.96, 0.08)),
        (2, 3),
        pillars=2,
    ),
}
CLASSES = tuple(BODIES)
SILL = 0.28
JITTER = 0.012  # of each outline point: no two cars of a type are quite alike
GLASS: Colour = (62, 80, 96)
TYRE: Colour = (32, 32, 34)
RIM: Colour = (178, 181, 186)
HEAD_LAMP: Colour = (252, 240, 196)
REAR_LAMP: Colour = (196, 32, 34)
FRONT, WHEEL, PLATE = 130.0, 150.0, 140.0  # heights
TAXIS, MINIBUSES = 0.1, 0.35  # shares: of the cars with a roof, of the vans


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: a vehicle of body type `label`."""
    body, wheel = BODIES[label], float(random.uniform(0.15, 0.17)) * BODIES[label].wheel
    scale = random.uniform(0.78, 1.0)
    slack = (1.0 - 0.9 * scale) + 0.06
    pose = Pose(
        scale,
        (random.uniform(-slack, slack), random.uniform(-0.12, 0.3)),
        random.uniform(-6, 6),
        mirrored=bool(random.random() < 0.5),
        stretch=random.uniform(0.94, 1.06),
    )
    ground = SILL + wheel
    scene, light = street(random, pose, ground, far=SILL + random.uniform(-0.06, 0.08))
    canvas = object_canvas(scene, pose)
    jitter = random.normal(0, JITTER, (len(body.outline), 2))
    top = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(body.outline, jitter, strict=True)]
    _shadow(canvas, pose, light, top, ground)
    paint, kind = _livery(random, label, body)
    _body(canvas, top, paint, light)
    _glazing(canvas, body, label, kind, top, paint)
    _trim(canvas, random, label, kind, top, paint)
    for x in (top[0][0] + 0.33, top[-1][0] - 0.34):
        _wheel(canvas, (x, SILL), wheel, paint)
    return lit(canvas, light, random)


def _livery(random: np.random.Generator, label: str, body: Body) -> tuple[Colour, str]:
    """Return the paint, and the kind of vehicle that it belongs to."""
    chance = random.random()
    if label == "van":
        kind = "minibus" if chance < MINIBUSES else "delivery"
        return pick(random, colours.MINIBUS if kind == "minibus" else colours.VANS, 0.04), kind
    if chance < TAXIS and label not in ("convertible", "pickup", "coupe"):
        return pick(random, [colours.TAXI], 0.04), "taxi"
    return pick(random, colours.PAINTS), "car"


def _shadow(canvas: Canvas, pose: Pose, light: Light, top: list[Point], ground: float) -> None:
    """Darken the road below the car, and beside it on the side away from the light."""
    rear, front = top[0][0], top[-1][0]
    shift = -light.x * light.strength * (-1 if pose.mirrored else 1)
    for share, darkness in ((1.0, 58), (0.5, 40)):
        centre = ((rear + front) / 2 + 0.22 * shift * share, ground + 0.01 + 0.03 * share)
        canvas.ellipse(centre, ((front - rear) * 0.52, 0.05 + 0.05 * share), (darkness, darkness, darkness + 5))


def _body(canvas: Canvas, top: list[Point], paint: Colour, light: Light) -> None:
    rear, front = top[0][0], top[-1][0]
    outline = [*top, (front + 0.005, SILL - 0.06), (front - 0.04, SILL), (rear + 0.04, SILL), (rear, SILL - 0.06)]
    canvas.polygon(rounded(outline, 1, 0.1), paint, FRONT)
    lower = [(rear + 0.01, 0.1), (front - 0.01, 0.12), (front - 0.02, SILL - 0.02), (rear + 0.02, SILL - 0.02)]
    canvas.polygon(lower, shade(paint, 0.8), FRONT)
    canvas.line([(rear + 0.05, 0.0), (front - 0.08, 0.02)], 0.025, mix(paint, (255, 255, 255), 0.35), FRONT)
    sill = [(rear + 0.03, SILL - 0.05), (front - 0.03, SILL - 0.05), (front - 0.05, SILL), (rear + 0.05, SILL)]
    canvas.polygon(sill, shade(paint, 0.42), FRONT)


def _glazing(canvas: Canvas, body: Body, label: str, kind: str, top: list[Point], paint: Colour) -> None:
    if label == "convertible":
        _open_top(canvas)
        return
    (rear_x, rear_y), (front_x, front_y) = top[body.roof[0]], top[body.roof[1]]
    before, after = top[body.roof[0] - 1], top[body.roof[1] + 1]
    rear_low = rear_x + (before[0] - rear_x) * 0.72 + 0.05
    front_low = front_x + (after[0] - front_x) * 0.78 - 0.03
    if kind == "delivery":
        rear_x = rear_low = front_x - 0.34
    upper = 0.065  # height of the roof above the windows
    corners = [
        (rear_x + 0.03, rear_y + upper),
        (front_x - 0.02, front_y + upper),
        (front_low, body.belt),
        (rear_low, body.belt),
    ]
    canvas.polygon(corners, GLASS, FRONT - 12)
    middle = [tuple(np.add(a, b) / 2) for a, b in ((corners[0], corners[3]), (corners[1], corners[2]))]
    canvas.polygon([corners[0], corners[1], middle[1], middle[0]], mix(GLASS, (190, 216, 240), 0.5), FRONT - 12)
    pillars = 4 if kind == "minibus" else body.pillars
    posts = [rear_x + (front_x - rear_x) * (i + 1) / (pillars + 1) for i in range(pillars)]
    for x in posts:
        canvas.line([(x, rear_y + upper), (x, body.belt)], 0.04, shade(paint, 0.7), FRONT)
    for x in (*posts[-1:], front_low - 0.06):  # a door's edges
        canvas.line([(x, body.belt + 0.02), (x, SILL - 0.07)], 0.012, shade(paint, 0.6), FRONT - 4)


def _open_top(canvas: Canvas) -> None:
    canvas.polygon([(-0.36, -0.08), (0.24, -0.08), (0.2, -0.03), (-0.32, -0.03)], (52, 44, 42), FRONT - 30)
    for x in (-0.24, -0.04):  # the seats' backs
        canvas.polygon(ellipse_points((x, -0.13), (0.065, 0.13)), (96, 66, 50), FRONT)
    canvas.line([(0.28, -0.05), (0.1, -0.34)], 0.05, mix(GLASS, (190, 216, 240), 0.5), FRONT - 12)
    canvas.line([(0.29, -0.05), (0.11, -0.34)], 0.02, (60, 62, 66), FRONT)


def _trim(canvas: Canvas, random: np.random.Generator, label: str, kind: str, top: list[Point], paint: Colour) -> None:
    """Draw lamps, bumpers, handle, and what only some vehicles have."""
    rear, front = top[0][0], top[-1][0]
    nose = top[-1][1]
    canvas.polygon(
        [(rear - 0.01, 0.13), (rear + 0.08, 0.13), (rear + 0.08, 0.2), (rear - 0.01, 0.2)], (58, 59, 62), PLATE
    )
    canvas.polygon(
        [(front - 0.08, 0.15), (front + 0.015, 0.15), (front + 0.015, 0.22), (front - 0.08, 0.22)], (58, 59, 62), PLATE
    )
    canvas.ellipse((front - 0.07, nose + 0.035), (0.065, 0.04), HEAD_LAMP, PLATE, degrees=8)
    canvas.ellipse((rear + 0.035, max(top[0][1], -0.05) + 0.06), (0.035, 0.06), REAR_LAMP, PLATE)
    canvas.line([(-0.06, 0.0), (0.02, 0.0)], 0.022, shade(paint, 0.5), PLATE)  # the door's handle
    if label == "pickup":
        canvas.polygon(
            [(rear + 0.05, -0.19), (-0.09, -0.19), (-0.09, -0.13), (rear + 0.05, -0.13)], shade(paint, 0.5), 90
        )
    elif label == "suv":  # the spare wheel
        canvas.polygon(rounded([(rear - 0.1, -0.34), (rear, -0.34), (rear, 0.02), (rear - 0.1, 0.02)]), TYRE, WHEEL)
    elif label == "coupe":  # the spoiler
        y = top[1][1]
        canvas.polygon(
            [(rear, y - 0.12), (rear + 0.24, y - 0.1), (rear + 0.22, y - 0.05), (rear + 0.02, y - 0.06)],
            shade(paint, 0.6),
            PLATE,
        )
        canvas.line([(rear + 0.16, y - 0.07), (rear + 0.18, y + 0.02)], 0.03, shade(paint, 0.6), PLATE)
    elif label == "wagon" and kind == "car":
        _roof_rails(canvas, top[2], top[3])
    if kind == "taxi":
        roof = min(y for _, y in top)
        x = float(np.mean([x for x, y in top if y < roof + 0.05]))
        canvas.polygon(
            [(x - 0.1, roof), (x - 0.08, roof - 0.09), (x + 0.08, roof - 0.09), (x + 0.1, roof)], (250, 246, 225), PLATE
        )
        squares = [
            [(c, 0.04), (c + 0.04, 0.04), (c + 0.04, 0.08), (c, 0.08)]
            for c in np.arange(rear + 0.1, front - 0.15, 0.08)
        ]
        canvas.polygons(squares, (36, 36, 38), FRONT)
    if kind == "minibus":
        canvas.line([(rear + 0.02, -0.1), (front - 0.12, -0.1)], 0.05, shade(paint, 0.45), FRONT)
    if kind == "delivery" and random.random() < 0.7:
        stripe = (214, 60, 48) if sum(paint) > 660 else (244, 242, 238)
        canvas.polygon([(rear + 0.04, -0.42), (-0.05, -0.42), (-0.12, -0.26), (rear + 0.04, -0.26)], stripe, FRONT)


def _roof_rails(canvas: Canvas, rear: Point, front: Point) -> None:
    y = min(rear[1], front[1])
    canvas.line([(rear[0] + 0.04, y - 0.07), (front[0] - 0.06, y - 0.07)], 0.035, (70, 72, 76), PLATE)
    for x in (rear[0] + 0.1, front[0] - 0.12):
        canvas.line([(x, y - 0.07), (x, y + 0.02)], 0.035, (70, 72, 76), PLATE)


def _wheel(canvas: Canvas, centre: Point, radius: float, paint: Colour) -> None:
    canvas.polygon(ellipse_points(centre, (radius * 1.2, radius * 1.2), arc=(180, 360)), shade(paint, 0.3), FRONT - 40)
    canvas.ellipse(centre, (radius, radius), TYRE, WHEEL)
    canvas.ellipse(centre, (radius * 0.62, radius * 0.62), RIM, WHEEL)
    canvas.polygons(_spokes() * radius + centre, (86, 88, 94), WHEEL)


@cache
def _spokes() -> np.ndarray:
    """Return (5, 3, 2): the gaps between the spokes of a wheel of radius 1."""
    start = np.deg2rad(np.arange(0, 360, 72))
    angles = np.stack((start + np.deg2rad(20), start, start + np.deg2rad(40)), 1)  # (5, 3)
    return np.stack((np.cos(angles), np.sin(angles)), 2) * np.array([0.2, 0.52, 0.52])[:, None]
