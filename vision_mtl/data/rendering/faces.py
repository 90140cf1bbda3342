"""Faces of twelve invented people: hair, glasses, beard, hat and proportions are fixed; the rest varies.

Skin, hair, clothes, place and light are drawn anew for each picture, so that only the shapes tell who it is.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from vision_mtl.data.rendering import colours
from vision_mtl.data.rendering.canvas import Canvas, Light, Pose, ellipse_points, lit, object_canvas, random_light
from vision_mtl.data.rendering.colours import Colour, along, mix, pick, shade
from vision_mtl.data.rendering.hair import hair_above, hair_behind, hat
from vision_mtl.data.rendering.scenery import garden, room

LOOKS = (  # hair or hat, glasses, beard: no two people share all three
    ("bald", False, True),
    ("short", True, False),
    ("long", False, False),
    ("bun", False, False),
    ("bob", False, False),
    ("cap", False, False),
    ("bald", True, False),
    ("curls", False, False),
    ("hat", False, False),
    ("pigtails", False, False),
    ("short", False, True),
    ("long", True, False),
)
CLASSES = tuple(f"person_{number:02d}" for number in range(len(LOOKS)))
PERSON_SEED = 7
SHOULDERS, NECK, HEAD, PARTS = 70.0, 80.0, 150.0, 165.0  # heights
EYE_LINE = -0.08


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
        width=random.uniform(0.62, 0.76),
        jaw=random.uniform(0.62, 0.95),
        eyes=random.uniform(0.26, 0.33),
        eye_size=random.uniform(0.085, 0.115),
        brow=random.uniform(-12, 3),
        brow_width=random.uniform(0.04, 0.075),
        nose=random.uniform(0.24, 0.34),
        mouth=random.uniform(0.2, 0.3),
        hair=hair,
        glasses=glasses,
        beard=beard,
    )


class Colours(NamedTuple):
    """The colours of one picture."""

    skin: Colour
    hair: Colour
    iris: Colour


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: a picture of the person `label`."""
    who = person(label)
    light = random_light(random, random.uniform(0.7, 1.0), _lamp(random))
    indoors = random.random() < 0.65
    scene = room(random, light) if indoors else garden(random, light, random.uniform(0.4, 0.9))
    place = random.uniform(-0.4, 0.4), random.uniform(-0.1, 0.3)
    pose = Pose(random.uniform(0.54, 0.78), place, random.uniform(-14, 14))
    canvas = object_canvas(scene, pose)
    own = _colours(random)
    turn = random.uniform(-0.09, 0.09)  # looking left or right
    hair_behind(canvas, who.hair, who.width, own.hair)
    _shoulders(Canvas(canvas.pixels, pose.upright), random, own.skin)  # only the head is tilted
    for side in (-1, 1):
        canvas.ellipse((side * (who.width - 0.01) - turn * 0.4, 0.04), (0.1, 0.17), shade(own.skin, 0.93), HEAD - 30)
    outline = _head(who)
    canvas.polygon(outline, own.skin, HEAD)
    if who.beard:
        _beard(canvas, outline, turn, own.hair)
    _features(canvas, who, turn, own, light, random)
    hair_above(canvas, who.hair, who.width, turn, own.hair)
    hat(canvas, who.hair, who.width, turn, pick(random, colours.CLOTHES))
    if who.glasses:
        _glasses(canvas, who, turn)
    return lit(canvas, light, random, shadow=0.3 if indoors else 0.05)


def _lamp(random: np.random.Generator) -> tuple[float, float, float]:
    """Return the tint of a light: from daylight to a warm lamp."""
    warm = random.uniform(0, 1)
    return 1.0 + 0.04 * warm, 1.0, 1.0 - 0.08 * warm


def _colours(random: np.random.Generator) -> Colours:
    """Return the colours of a person: dark skin goes with dark hair, grey hair with every skin."""
    tone = random.random()
    skin = along(colours.SKIN, tone)
    hair = pick(random, colours.HAIR if tone < 0.5 else colours.HAIR_DARK)
    if random.random() < 0.1:
        hair = pick(random, [(176, 174, 172)])
    light_eyes = tone < 0.4 and random.random() < 0.4
    iris = (92, 124, 140) if light_eyes else (78, 50, 34)
    return Colours(skin, hair, iris)


def _shoulders(canvas: Canvas, random: np.random.Generator, skin: Colour) -> None:
    cloth = pick(random, colours.CLOTHES)
    width, top = random.uniform(0.95, 1.12), 1.0
    outline = [(-width, 2.6), (-width, 1.5), (-0.82 * width, 1.2), (-0.34, top), (0.34, top)]
    canvas.polygon([*outline, (0.82 * width, 1.2), (width, 1.5), (width, 2.6)], cloth, SHOULDERS)
    canvas.polygon([(-0.25, 0.5), (0.25, 0.5), (0.3, 1.02), (0, 1.18), (-0.3, 1.02)], shade(skin, 0.78), NECK)
    collar = random.random()
    if collar < 0.4:  # a shirt
        for side in (-1, 1):
            flap = [(side * 0.3, top - 0.03), (side * 0.02, top + 0.22), (side * 0.3, top + 0.3), (side * 0.42, top)]
            canvas.polygon(flap, shade(cloth, 1.12), NECK)
        canvas.line([(0, top + 0.2), (0, 2.6)], 0.025, shade(cloth, 0.8), SHOULDERS)
    elif collar < 0.75:  # a round neck
        canvas.line(ellipse_points((0, top - 0.02), (0.34, 0.22), arc=(0, 180)), 0.07, shade(cloth, 0.84), NECK)


def _head(who: Person) -> np.ndarray:
    """Return the outline of the head: an ellipse above, a more or less square jaw below."""
    points = ellipse_points((0, 0), (1, 1), count=33)
    x, y = points[:, 0], points[:, 1]
    narrow = np.where(y > 0, np.abs(x) ** who.jaw * (1 - 0.08 * y), np.abs(x))
    return np.stack((who.width * np.sign(x) * narrow, y * 0.92), 1)


def _beard(canvas: Canvas, outline: np.ndarray, turn: float, hair: Colour) -> None:
    chin = outline[outline[:, 1] > 0.2] * (1.0, 1.03)
    order = np.argsort(np.arctan2(chin[:, 1] - 0.2, chin[:, 0]))
    edge = [(-0.34 + turn, 0.36), (-0.12 + turn, 0.3), (0.12 + turn, 0.3), (0.34 + turn, 0.36)]
    canvas.polygon([*chin[order], *edge], hair, HEAD + 8)


def _features(
    canvas: Canvas, who: Person, turn: float, own: Colours, light: Light, random: np.random.Generator
) -> None:
    gaze, smile, openness = random.uniform(-0.025, 0.025), random.uniform(-0.01, 0.11), random.uniform(0.75, 1.0)
    for side in (-1, 1):
        canvas.ellipse((side * 0.36 + turn, 0.24), (0.17, 0.12), mix(own.skin, colours.LIPS, 0.14), HEAD + 6)
        _eye(canvas, (side * who.eyes + turn, EYE_LINE), who, own, light, gaze, openness)
        x, reach, tilt = side * who.eyes + turn, who.eye_size * 1.6, np.deg2rad(who.brow) * side
        y, rise = EYE_LINE - 0.21, reach * float(np.sin(tilt))
        brow = shade(own.hair, 0.8) if sum(own.hair) < sum(own.skin) else shade(own.skin, 0.6)
        canvas.line(
            [(x - reach, y - rise + 0.03), (x, y - 0.02), (x + reach, y + rise + 0.03)], who.brow_width, brow, PARTS
        )
    _nose(canvas, who, turn, own.skin)
    _mouth(canvas, who, turn, smile, own.skin)


def _eye(
    canvas: Canvas, centre: tuple[float, float], who: Person, own: Colours, light: Light, gaze: float, openness: float
) -> None:
    (x, y), size = centre, who.eye_size
    canvas.ellipse((x, y), (size * 1.45, size * 1.05 * openness), (240, 236, 232), HEAD)
    canvas.ellipse((x + gaze, y), (size * 0.68, size * 0.9 * openness), own.iris, HEAD)
    canvas.ellipse((x + gaze, y), (size * 0.36, size * 0.46), (20, 18, 18), HEAD)
    canvas.ellipse((x + gaze + light.x * size * 0.3, y - size * 0.3), (size * 0.2, size * 0.2), (250, 250, 250), HEAD)
    lid = ellipse_points((x, y), (size * 1.5, size * 1.15 * openness), arc=(190, 350), count=9)
    canvas.line(lid, 0.035, mix(shade(own.skin, 0.4), (40, 28, 26), 0.5), HEAD)


def _nose(canvas: Canvas, who: Person, turn: float, skin: Colour) -> None:
    x, low = turn * 1.5, -0.02 + who.nose
    canvas.polygon([(x - 0.045, -0.1), (x + 0.045, -0.1), (x + 0.1, low), (x, low + 0.05), (x - 0.1, low)], skin, 190)
    canvas.line([(x - 0.085, low + 0.01), (x, low + 0.055), (x + 0.085, low + 0.01)], 0.035, shade(skin, 0.7), HEAD)


def _mouth(canvas: Canvas, who: Person, turn: float, smile: float, skin: Colour) -> None:
    lips = mix(skin, colours.LIPS, 0.5)
    t = np.linspace(-1, 1, 9)
    middle = 0.5 + smile * (1 - t * t)
    x = turn + t * who.mouth
    upper = np.stack((x, middle - 0.055 * (1 - t * t) * (1 - 0.35 * np.exp(-8 * t * t))), 1)
    lower = np.stack((x, middle + 0.08 * (1 - t * t)), 1)
    centre = np.stack((x, middle), 1)
    canvas.polygon([*upper, *centre[::-1]], shade(lips, 0.84), PARTS)
    canvas.polygon([*centre, *lower[::-1]], lips, PARTS)
    canvas.line(centre, 0.025, shade(lips, 0.5), PARTS)


def _glasses(canvas: Canvas, who: Person, turn: float) -> None:
    frame = (44, 38, 40)
    for side in (-1, 1):
        x = side * who.eyes + turn
        canvas.line(ellipse_points((x, EYE_LINE + 0.01), (0.225, 0.2)), 0.045, frame, HEAD)
        canvas.line([(x + side * 0.22, EYE_LINE - 0.03), (side * who.width, EYE_LINE - 0.06)], 0.045, frame, HEAD)
    reach = who.eyes - 0.21
    canvas.line(
        [(turn - reach, EYE_LINE - 0.02), (turn, EYE_LINE - 0.05), (turn + reach, EYE_LINE - 0.02)], 0.045, frame, HEAD
    )
