"""Cars from the side, in eight body types that differ only in outline."""

from __future__ import annotations

import numpy as np

from vision_mtl.data.rendering.version_2.canvas import Canvas, Point, contrasting_colour, random_colour, shade

# upper outline from the rear bumper to the front, y down; the body's lower edge is at SILL. The roof's two ends follow.
OUTLINES: dict[str, tuple[list[Point], tuple[int, int]]] = {
    "convertible": ([(-0.95, -0.02), (-0.5, -0.1), (-0.3, -0.06), (0.2, -0.06), (0.5, -0.06), (0.95, 0.06)], (0, 0)),
    "coupe": ([(-0.95, -0.02), (-0.62, -0.12), (-0.2, -0.38), (0.08, -0.38), (0.42, -0.06), (0.95, 0.06)], (2, 3)),
    "hatchback": ([(-0.72, -0.02), (-0.66, -0.2), (-0.5, -0.46), (0.06, -0.46), (0.36, -0.08), (0.74, 0.02)], (2, 3)),
    "pickup": ([(-0.97, -0.16), (-0.06, -0.16), (-0.03, -0.6), (0.26, -0.6), (0.46, -0.14), (0.95, -0.08)], (2, 3)),
    "sedan": ([(-0.95, -0.08), (-0.54, -0.1), (-0.3, -0.44), (0.1, -0.44), (0.38, -0.08), (0.95, 0.03)], (2, 3)),
    "suv": ([(-0.82, -0.16), (-0.8, -0.3), (-0.7, -0.64), (0.16, -0.64), (0.4, -0.2), (0.84, -0.14)], (2, 3)),
    "van": ([(-0.95, 0.0), (-0.95, -0.6), (-0.9, -0.68), (0.5, -0.68), (0.8, -0.14), (0.95, -0.02)], (2, 3)),
    "wagon": ([(-0.95, -0.02), (-0.95, -0.2), (-0.88, -0.46), (0.14, -0.46), (0.42, -0.08), (0.95, 0.03)], (2, 3)),
}
CLASSES = tuple(OUTLINES)
SILL = 0.28
JITTER = 0.012  # of each outline point: no two cars of a type are quite alike


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: a car of body type `label`."""
    canvas = Canvas(random, scales=(0.75, 0.98), tilt=9.0)
    outline, roof = OUTLINES[label]
    top = [
        (x + dx, y + dy) for (x, y), (dx, dy) in zip(outline, random.normal(0, JITTER, (len(outline), 2)), strict=True)
    ]
    paint = random_colour(random)
    glass = contrasting_colour(random, paint)
    rear, front = top[0][0], top[-1][0]
    canvas.ellipse(((rear + front) / 2, 0.42), ((front - rear) * 0.5, 0.07), (25, 25, 30))
    canvas.polygon([*top, (front, SILL), (rear, SILL)], paint)
    canvas.polygon([(rear, 0.12), (front, 0.14), (front, SILL), (rear, SILL)], shade(paint, 0.75))
    _windows(canvas, label, top, roof, glass, paint)
    wheel = random.uniform(0.15, 0.17) * (1.2 if label in ("pickup", "suv") else 1.0)
    for x in (rear + 0.34, front - 0.34):
        canvas.ellipse((x, SILL), (wheel, wheel), (20, 20, 22))
        canvas.ellipse((x, SILL), (wheel * 0.5, wheel * 0.5), (170, 170, 175))
    canvas.ellipse((front - 0.05, 0.08), (0.05, 0.04), (250, 240, 190))
    canvas.ellipse((rear + 0.04, 0.08), (0.03, 0.05), (190, 30, 30))
    return canvas.finish()


def _windows(
    canvas: Canvas, label: str, top: list[Point], roof: tuple[int, int], glass: np.ndarray, paint: np.ndarray
) -> None:
    if label == "convertible":
        canvas.line([(0.26, -0.04), (0.06, -0.36)], 0.06, glass)
        for x in (-0.3, -0.12):  # the seats' backs
            canvas.ellipse((x, -0.13), (0.07, 0.15), glass)
        return
    (rear_x, rear_y), (front_x, front_y) = top[roof[0]], top[roof[1]]
    belt = -0.1 if label not in ("suv", "van") else -0.22
    before, after = top[roof[0] - 1], top[roof[1] + 1]
    drop = 0.06  # roof rail
    rear_low = rear_x + (before[0] - rear_x) * 0.75 + 0.05
    front_low = front_x + (after[0] - front_x) * 0.75 - 0.04
    if label == "van":
        rear_x, rear_low = front_x - 0.45, front_x - 0.45
    canvas.polygon(
        [(rear_x + 0.04, rear_y + drop), (front_x - 0.02, front_y + drop), (front_low, belt), (rear_low, belt)], glass
    )
    pillars = {"coupe": 0, "pickup": 0, "van": 0, "wagon": 2, "suv": 2}.get(label, 1)
    for i in range(pillars):
        x = rear_x + (front_x - rear_x) * (i + 1) / (pillars + 1)
        canvas.line([(x, rear_y + drop), (x, belt)], 0.045, paint)
