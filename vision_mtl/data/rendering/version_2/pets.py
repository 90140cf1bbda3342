"""Heads of cats, dogs and rabbits: ears, muzzle and cheeks differ; coat, markings and the rest are random."""

from __future__ import annotations

import numpy as np

from vision_mtl.data.rendering.version_2.canvas import Canvas, contrasting_colour, ellipse_points, random_colour, shade

CLASSES = ("cat", "dog", "rabbit")


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: the head of an animal."""
    canvas = Canvas(random, scales=(0.58, 0.88), tilt=16.0)
    coat = random_colour(random)
    patch = contrasting_colour(random, coat)
    width, height = random.uniform(0.62, 0.74), random.uniform(0.55, 0.66)
    canvas.ellipse((0, 1.05), (0.75, 0.7), shade(coat, random.uniform(0.8, 1.2)))
    if label != "dog":
        _upright_ears(canvas, label, width, coat, patch)
    canvas.ellipse((0, 0.1), (width, height), coat)
    for _ in range(random.integers(0, 5)):  # markings
        centre = (random.uniform(-0.5, 0.5), random.uniform(-0.3, 0.4))
        canvas.ellipse(centre, tuple(random.uniform(0.05, 0.18, 2)), shade(coat, random.uniform(0.6, 1.4)))
    if label == "dog":
        _floppy_ears(canvas, width, patch)
    _face(canvas, label, coat, patch)
    return canvas.finish()


def _upright_ears(canvas: Canvas, label: str, width: float, coat: np.ndarray, inner: np.ndarray) -> None:
    random = canvas.random
    spread = random.uniform(-8, 8)
    for side in (-1, 1):
        if label == "rabbit":
            centre, lean = (side * width * 0.45, -0.72), side * (10 + spread)
            canvas.ellipse(centre, (0.15, 0.52), coat, lean)
            canvas.ellipse(centre, (0.07, 0.4), inner, lean)
        else:
            tip = (side * (width * 0.95 + spread / 100), -0.78)
            canvas.polygon([(side * width * 0.95, 0.0), tip, (side * width * 0.15, -0.45)], coat)
            canvas.polygon([(side * width * 0.8, -0.15), (tip[0] * 0.95, -0.62), (side * width * 0.35, -0.42)], inner)


def _floppy_ears(canvas: Canvas, width: float, colour: np.ndarray) -> None:
    swing = canvas.random.uniform(-10, 10)
    for side in (-1, 1):
        canvas.ellipse((side * width * 0.98, 0.12), (0.19, 0.5), colour, side * (-12 + swing))


def _face(canvas: Canvas, label: str, coat: np.ndarray, patch: np.ndarray) -> None:
    random = canvas.random
    gaze, muzzle = random.uniform(-0.03, 0.03), shade(coat, random.choice((0.7, 1.3)))
    nose = contrasting_colour(random, muzzle)
    white = (235, 225, 170) if random.random() < 0.5 else (240, 240, 240)
    if label == "dog":  # a long muzzle with a big nose
        canvas.ellipse((0, 0.34), (0.3, 0.34), muzzle)
        canvas.ellipse((0, 0.2), (0.14, 0.1), nose)
    else:
        canvas.ellipse((0, 0.36), (0.22, 0.14), muzzle)
        canvas.polygon([(-0.07, 0.24), (0.07, 0.24), (0, 0.32)], nose)
    for side in (-1, 1):
        x = side * (0.26 if label != "rabbit" else 0.36)
        canvas.ellipse((x, -0.04), (0.11, 0.11), white)
        pupil = (0.035, 0.1) if label == "cat" else (0.07, 0.08)
        canvas.ellipse((x + gaze, -0.04), pupil, (20, 20, 20))
        canvas.line(ellipse_points((side * 0.09, 0.42), (0.09, 0.08), arc=(0, 180)), 0.025, patch)
        if label != "dog":
            for tilt in (-0.06, 0.02, 0.1):
                canvas.line([(side * 0.18, 0.36), (side * 0.62, 0.36 + tilt)], 0.012, (235, 235, 235))
