"""Faces of twelve invented people: hair, glasses, beard and proportions are fixed; colour, pose and mood vary."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from vision_mtl.data.rendering.version_2.canvas import Canvas, contrasting_colour, ellipse_points, random_colour, shade

LOOKS = (  # hair, glasses, beard: no two people share all three
    ("bald", False, True),
    ("short", True, False),
    ("long", False, False),
    ("bun", False, False),
    ("fringe", False, False),
    ("spikes", False, False),
    ("bald", True, False),
    ("curls", False, False),
    ("mohawk", False, False),
    ("pigtails", False, False),
    ("short", False, True),
    ("long", True, False),
)
CLASSES = tuple(f"person_{number:02d}" for number in range(len(LOOKS)))
PERSON_SEED = 7
HAIRLINES = {  # where hair ends above the face, by style
    "bun": -0.6,
    "curls": -0.4,
    "fringe": -0.2,
    "long": -0.45,
    "pigtails": -0.5,
    "short": -0.5,
    "spikes": -0.55,
}


class Person(NamedTuple):
    """The fixed features of one person; lengths are in units of half the head's height."""

    width: float
    jaw: float  # how square the lower face is
    eyes: float  # half the distance between them
    eye_size: float
    brow: float  # degrees
    brow_width: float
    nose: float
    mouth: float
    hair: str
    glasses: bool
    beard: bool


@cache
def person(label: str) -> Person:
    """Return the person of a class, drawn with the class number as seed."""
    number = CLASSES.index(label)
    random = np.random.default_rng([PERSON_SEED, number])
    hair, glasses, beard = LOOKS[number]
    return Person(
        width=random.uniform(0.56, 0.82),
        jaw=random.uniform(0.5, 0.95),
        eyes=random.uniform(0.24, 0.36),
        eye_size=random.uniform(0.08, 0.13),
        brow=random.uniform(-18, 18),
        brow_width=random.uniform(0.03, 0.08),
        nose=random.uniform(0.16, 0.36),
        mouth=random.uniform(0.14, 0.32),
        hair=hair,
        glasses=glasses,
        beard=beard,
    )


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: a picture of the person `label`."""
    who = person(label)
    canvas = Canvas(random, scales=(0.6, 0.85), tilt=14.0)
    turn = random.uniform(-0.1, 0.1)  # looking left or right
    skin = random_colour(random)
    hair = contrasting_colour(random, skin)
    width = who.width
    shoulders = [(-0.95, 1.35), (-0.6, 0.85), (0.6, 0.85), (0.95, 1.35)]
    canvas.polygon(shoulders, random_colour(random))
    _hair_behind(canvas, who.hair, width, hair)
    canvas.polygon([(-0.22, 0.4), (0.22, 0.4), (0.26, 1.0), (-0.26, 1.0)], shade(skin, 0.8))
    for side in (-1, 1):
        canvas.ellipse((side * width, 0.02), (0.1, 0.16), shade(skin, 0.85))
    canvas.polygon(_head(width, who.jaw), skin)
    if who.beard:
        chin = [(x, y) for x, y in _head(width * 1.02, who.jaw) if y > 0.2]
        canvas.polygon(chin, hair)
    _hair_above(canvas, who.hair, width, hair)
    _features(canvas, who, turn, skin, hair)
    return canvas.finish()


def _head(width: float, jaw: float) -> list[tuple[float, float]]:
    """Return the outline of the head: an ellipse above, a more or less square jaw below."""
    points = ellipse_points((0, 0), (1, 1))
    return [(width * np.sign(x) * abs(x) ** (jaw if y > 0 else 1.0), y * 0.9) for x, y in points]


def _features(canvas: Canvas, who: Person, turn: float, skin: np.ndarray, hair: np.ndarray) -> None:
    random = canvas.random
    gaze, smile, openness = random.uniform(-0.03, 0.03), random.uniform(-0.12, 0.14), random.uniform(0.6, 1.0)
    frame = contrasting_colour(random, skin)
    for side in (-1, 1):
        x, y = side * who.eyes + turn, -0.1
        canvas.ellipse((x, y), (who.eye_size * 1.3, who.eye_size * openness), (240, 240, 240))
        canvas.ellipse((x + gaze, y), (who.eye_size * 0.55, who.eye_size * 0.55 * openness), (35, 30, 30))
        tilt = np.deg2rad(who.brow) * side
        reach = who.eye_size * 1.6
        ends = [(x - reach, y - 0.22 - reach * np.sin(tilt)), (x + reach, y - 0.22 + reach * np.sin(tilt))]
        canvas.line(ends, who.brow_width, hair)
        if who.glasses:
            canvas.line(ellipse_points((x, y), (0.22, 0.2)), 0.06, frame)
            canvas.line([(x + side * 0.22, y), (side * who.width, y - 0.04)], 0.06, frame)
    if who.glasses:
        canvas.line([(turn - who.eyes + 0.22, -0.1), (turn + who.eyes - 0.22, -0.1)], 0.06, frame)
    nose = [(turn * 1.5, -0.05), (turn * 1.5 + 0.09, -0.05 + who.nose), (turn * 1.5 - 0.02, -0.03 + who.nose)]
    canvas.line(nose, 0.035, shade(skin, 0.65))
    mouth = [(turn + x * who.mouth, 0.5 + smile * (1 - x * x)) for x in np.linspace(-1, 1, 9)]
    canvas.line(mouth, 0.06, (150, 45, 55))


def _hair_behind(canvas: Canvas, style: str, width: float, colour: np.ndarray) -> None:
    if style == "long":
        crown = ellipse_points((0, -0.1), (width * 1.3, 0.95), arc=(180, 360))
        canvas.polygon([*crown, (width * 1.3 + 0.2, 1.05), (-width * 1.3 - 0.2, 1.05)], colour)
    if style == "bun":
        canvas.ellipse((0, -1.05), (0.38, 0.32), colour)
    if style == "curls":
        for degrees in np.linspace(150, 390, 11):
            t = np.deg2rad(degrees)
            canvas.ellipse((width * 1.15 * np.cos(t), -0.25 + 0.85 * np.sin(t)), (0.27, 0.27), colour)
    if style == "pigtails":
        for side in (-1, 1):
            canvas.ellipse((side * (width + 0.32), 0.05), (0.24, 0.5), colour, -side * 25)


def _hair_above(canvas: Canvas, style: str, width: float, colour: np.ndarray) -> None:
    if style == "mohawk":
        canvas.polygon([(-0.16, -0.45), (-0.2, -1.25), (0, -1.4), (0.2, -1.25), (0.16, -0.45)], colour)
    if style not in HAIRLINES:
        return
    crown = ellipse_points((0, -0.12), (width * 1.08, 0.86), arc=(180, 360))
    line = HAIRLINES[style]
    hairline = [(width * x, line - 0.1 * (1 - x * x) * (style != "fringe")) for x in np.linspace(1, -1, 7)]
    canvas.polygon([*crown, *hairline], colour)
    if style == "spikes":
        for x in np.linspace(-0.8, 0.8, 5):
            canvas.polygon([(width * (x - 0.22), -0.7), (width * x * 1.4, -1.3), (width * (x + 0.22), -0.7)], colour)
