"""Cats, dogs and rabbits: ears, muzzle, eyes and whiskers tell them apart; coat, place and light are of any of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vision_mtl.data.rendering import colours
from vision_mtl.data.rendering.canvas import (
    Canvas,
    Light,
    Pose,
    ellipse_points,
    lit,
    object_canvas,
    random_light,
    rounded,
)
from vision_mtl.data.rendering.colours import Colour, mix, pick, shade
from vision_mtl.data.rendering.scenery import floor_or_sofa, garden, room

SEAT = 1.7  # y of the floor that an animal sits on
CLASSES = ("cat", "dog", "rabbit")
BODY, HEAD, EAR, MUZZLE = 70.0, 140.0, 120.0, 175.0  # heights
COATS: tuple[tuple[Colour, Colour, Colour], ...] = (  # coat, its dark and its light parts
    ((212, 142, 76), (164, 94, 46), (246, 226, 196)),
    ((150, 150, 154), (94, 94, 100), (230, 230, 230)),
    ((52, 48, 50), (32, 30, 33), (238, 236, 232)),
    ((240, 236, 228), (206, 196, 182), (250, 248, 244)),
    ((132, 96, 66), (84, 56, 38), (222, 198, 168)),
    ((226, 202, 164), (164, 122, 84), (246, 238, 222)),
    ((98, 70, 52), (60, 42, 34), (216, 192, 160)),
)
PATTERNS = ("plain", "plain", "white", "white", "points", "patch")
COLLARS: tuple[Colour, ...] = ((184, 52, 50), (60, 92, 156), (70, 116, 80))
TONGUE: Colour = (224, 118, 124)


class Animal(NamedTuple):
    """What is drawn anew for each picture."""

    coat: Colour
    dark: Colour
    light: Colour
    pattern: str
    width: float
    height: float

    @property
    def ears(self) -> Colour:
        """The colour of the ears' backs."""
        return self.dark if self.pattern == "points" else self.coat

    @property
    def muzzle(self) -> Colour:
        """The colour around the nose."""
        if self.pattern == "points":
            return self.dark
        return self.light if self.pattern == "white" else mix(self.coat, self.light, 0.45)

    @property
    def nose(self) -> Colour:
        """Pink where the coat is light, else dark."""
        return colours.PINK if sum(self.muzzle) > 540 else (44, 36, 38)


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """Return (96, 96, 3) uint8: an animal's head and chest."""
    light = random_light(random, random.uniform(0.7, 1.0))
    scale = random.uniform(0.36, 0.64)
    pose = Pose(
        scale,
        (random.uniform(-0.55, 0.55), random.uniform(-0.3, 0.45)),
        random.uniform(-20, 20),
        stretch=random.uniform(0.95, 1.06),
    )
    seat = pose.centre[1] + scale * SEAT  # where the animal sits, in the image's coordinates
    level, indoors = min(random.uniform(0.2, 0.75), seat - 0.08), random.random() < 0.5
    scene = floor_or_sofa(random, room(random, light), level) if indoors else garden(random, light, level)
    canvas = object_canvas(scene, pose)
    animal = _animal(random)
    tabby = label == "cat" and random.random() < 0.55
    upright = Canvas(canvas.pixels, pose.upright)  # only the head is tilted
    _body(upright, animal, tabby, light)
    if random.random() < 0.3:
        _collar(upright, random)
    if label == "rabbit":
        _long_ears(canvas, animal, random)
    elif label == "cat":
        _pointed_ears(canvas, animal, random)
    canvas.ellipse((0, 0.08), (animal.width, animal.height), animal.coat, HEAD)
    _markings(canvas, animal, tabby, random)
    {"cat": _cat, "dog": _dog, "rabbit": _rabbit}[label](canvas, animal, light, random)
    return lit(canvas, light, random, texture=0.09, shadow=0.25 if indoors else 0.05)


def _animal(random: np.random.Generator) -> Animal:
    coat, dark, light = COATS[int(random.random() * len(COATS))]
    factor = random.uniform(0.9, 1.06)
    return Animal(
        coat=pick(random, [coat]),
        dark=shade(dark, factor),
        light=shade(light, factor),
        pattern=PATTERNS[int(random.random() * len(PATTERNS))],
        width=random.uniform(0.62, 0.72),
        height=random.uniform(0.54, 0.62),
    )


def _body(canvas: Canvas, animal: Animal, tabby: bool, light: Light) -> None:
    """Draw the chest, the legs and the paws of a sitting animal, its shadow on the floor, and a tabby's stripes."""
    for reach in (1.0, 0.8):
        canvas.ellipse((-0.25 * light.x, SEAT), (0.92 * reach, 0.16 * reach), (58, 54, 50))
    outline = [(-0.4, 0.4), (-0.6, 0.95), (-0.78, 1.45), (-0.62, SEAT), (0.62, SEAT), (0.78, 1.45), (0.6, 0.95)]
    canvas.polygon(rounded([*outline, (0.4, 0.4)]), shade(animal.coat, 0.92), BODY)
    if tabby:
        for side in (-1, 1):
            for y, edge in ((0.85, 0.52), (1.1, 0.6), (1.35, 0.68)):
                canvas.line([(side * edge, y - 0.05), (side * (edge - 0.26), y + 0.05)], 0.06, animal.dark, BODY)
    leg = shade(animal.coat, 0.98)
    for side in (-1, 1):
        canvas.polygon(
            [(side * 0.08, 1.1), (side * 0.34, 1.1), (side * 0.32, SEAT), (side * 0.08, SEAT)], leg, BODY + 20
        )
        paw = animal.light if animal.pattern == "white" else animal.dark if animal.pattern == "points" else leg
        canvas.ellipse((side * 0.21, SEAT), (0.18, 0.11), paw, BODY + 30)
    if animal.pattern in ("white", "patch"):
        canvas.ellipse((0, 0.9), (0.32, 0.42), animal.light, BODY + 12)


def _markings(canvas: Canvas, animal: Animal, tabby: bool, random: np.random.Generator) -> None:
    """Draw what the coat has on the head: a blaze, a patch over one eye, stripes."""
    if animal.pattern == "white":
        width = random.uniform(0.06, 0.12)
        canvas.polygon(
            [(-width * 0.6, -0.4), (width * 0.6, -0.4), (width * 2, 0.25), (-width * 2, 0.25)], animal.light, HEAD
        )
    elif animal.pattern == "patch":
        side = 1 if random.random() < 0.5 else -1
        canvas.ellipse((side * 0.3, -0.06), (0.24, 0.26), animal.dark, HEAD, degrees=side * 20)
    elif animal.pattern == "points":
        canvas.ellipse((0, 0.2), (0.4, 0.36), mix(animal.dark, animal.coat, 0.35), HEAD)
    if tabby:
        for x in (-0.17, 0.0, 0.17):
            canvas.line([(x * 1.25, -0.46), (x, -0.22)], 0.055, animal.dark, HEAD)
        for side in (-1, 1):
            for y in (0.1, 0.24):
                edge = side * (animal.width - 0.03)
                canvas.line([(edge, y - 0.04), (edge - side * 0.2, y + 0.02)], 0.05, animal.dark, HEAD)


def _pointed_ears(canvas: Canvas, animal: Animal, random: np.random.Generator) -> None:
    lean = random.uniform(-0.08, 0.08)
    inner = mix(animal.coat, colours.PINK, 0.7)
    for side in (-1, 1):
        w = side * animal.width
        tip = (w * 0.92 + lean, -0.82)
        canvas.polygon(
            [(w * 0.99, 0.0), (w * 0.98 + lean * 0.8, -0.6), tip, (w * 0.6 + lean * 0.5, -0.66), (w * 0.12, -0.42)],
            animal.ears,
            EAR,
        )
        canvas.polygon([(w * 0.86, -0.15), (tip[0] * 0.97, -0.66), (w * 0.38, -0.4)], inner, EAR - 35)


def _long_ears(canvas: Canvas, animal: Animal, random: np.random.Generator) -> None:
    inner = mix(animal.coat, colours.PINK, 0.7)
    lean = random.uniform(-8, 8)
    for side in (-1, 1):
        degrees = side * random.uniform(6, 14) + lean
        centre = (side * 0.27 + lean / 60, -0.84)
        canvas.ellipse(centre, (0.165, 0.54), animal.ears, EAR, degrees=degrees)
        canvas.ellipse((centre[0], centre[1] + 0.03), (0.085, 0.42), inner, EAR - 35, degrees=degrees)


def _floppy_ears(canvas: Canvas, animal: Animal, random: np.random.Generator) -> None:
    ear = animal.dark if animal.pattern != "plain" else shade(animal.coat, 0.8)
    for side in (-1, 1):
        w, swing = side * animal.width, random.uniform(-0.06, 0.06)
        outline = [
            (w * 0.45, -0.42),
            (w * 0.85, -0.4),
            (w * 1.18, -0.1),
            (w * 1.25 + swing, 0.4),
            (w * 1.05 + swing, 0.58),
        ]
        canvas.polygon([*outline, (w * 0.86 + swing, 0.42), (w * 0.8, 0.0)], ear, HEAD + 20)


def _eyes(
    canvas: Canvas, at: tuple[float, float], size: float, iris: Colour, pupil: tuple[float, float], light: Light
) -> None:
    """Draw a pair of eyes; `pupil` is its half width and half height in sizes of the eye."""
    x, y = at
    for side in (-1, 1):
        canvas.ellipse((side * x, y), (size * 1.2, size * 1.12), (34, 28, 28), HEAD)
        canvas.ellipse((side * x, y), (size, size * 0.95), iris, HEAD)
        canvas.ellipse((side * x, y), (size * pupil[0], size * pupil[1]), (18, 16, 18), HEAD)
        canvas.ellipse(
            (side * x + light.x * size * 0.35, y - size * 0.4), (size * 0.26, size * 0.26), (250, 250, 250), HEAD
        )


def _whiskers(canvas: Canvas, at: tuple[float, float], animal: Animal) -> None:
    colour = (236, 234, 230) if sum(animal.coat) < 560 else (150, 142, 136)
    for side in (-1, 1):
        for tilt in (-0.08, 0.01, 0.1):
            canvas.line([(side * at[0], at[1] + tilt * 0.3), (side * (at[0] + 0.5), at[1] + tilt)], 0.012, colour, HEAD)


def _mouth(canvas: Canvas, y: float, size: float, colour: Colour) -> None:
    canvas.line([(0, y - size * 0.8), (0, y)], 0.028, colour, MUZZLE)
    for side in (-1, 1):
        canvas.line(ellipse_points((side * size, y), (size, size * 0.75), arc=(0, 180), count=9), 0.028, colour, MUZZLE)


def _collar(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a collar with a tag."""
    canvas.line(ellipse_points((0, 0.68), (0.46, 0.2), arc=(15, 165), count=9), 0.1, pick(random, COLLARS), BODY + 25)
    canvas.ellipse((0, 0.95), (0.075, 0.075), (222, 186, 88), BODY + 40)


def _cat(canvas: Canvas, animal: Animal, light: Light, random: np.random.Generator) -> None:
    iris = pick(random, [(150, 172, 84), (206, 166, 70), (118, 160, 118)])
    _eyes(canvas, (0.29, -0.04), 0.125, iris, (random.uniform(0.25, 0.5), 0.85), light)
    for side in (-1, 1):
        canvas.ellipse((side * 0.115, 0.36), (0.15, 0.115), animal.muzzle, MUZZLE)
    canvas.ellipse((0, 0.47), (0.11, 0.08), animal.muzzle, MUZZLE)
    canvas.polygon([(-0.075, 0.22), (0.075, 0.22), (0.02, 0.31), (-0.02, 0.31)], animal.nose, MUZZLE + 15)
    _mouth(canvas, 0.38, 0.085, shade(animal.dark, 0.6))
    _whiskers(canvas, (0.2, 0.36), animal)


def _dog(canvas: Canvas, animal: Animal, light: Light, random: np.random.Generator) -> None:
    _eyes(canvas, (0.25, -0.08), 0.1, pick(random, [(96, 62, 40)]), (0.6, 0.65), light)
    _floppy_ears(canvas, animal, random)
    if random.random() < 0.45:
        canvas.polygon([(-0.09, 0.55), (0.09, 0.55), (0.1, 0.76), (0.0, 0.84), (-0.1, 0.76)], TONGUE, HEAD)
    canvas.ellipse((0, 0.36), (0.33, 0.3), animal.muzzle, MUZZLE + 10)
    canvas.polygon(ellipse_points((0, 0.22), (0.145, 0.1)), (38, 32, 34), MUZZLE + 35)
    canvas.ellipse((light.x * 0.04, 0.18), (0.05, 0.022), (120, 116, 120), MUZZLE + 35)
    _mouth(canvas, 0.46, 0.12, shade(animal.dark, 0.5))


def _rabbit(canvas: Canvas, animal: Animal, light: Light, random: np.random.Generator) -> None:
    _eyes(canvas, (0.37, -0.06), 0.11, (72, 46, 40), (0.75, 0.8), light)
    for side in (-1, 1):
        canvas.ellipse((side * 0.3, 0.34), (0.2, 0.15), mix(animal.coat, animal.light, 0.3), HEAD + 12)
        canvas.ellipse((side * 0.09, 0.36), (0.12, 0.1), animal.muzzle, MUZZLE)
    for side in (-1, 1):
        canvas.polygon([(0, 0.44), (side * 0.055, 0.44), (side * 0.05, 0.55), (0, 0.55)], (246, 244, 238), MUZZLE)
    canvas.polygon([(-0.06, 0.24), (0.06, 0.24), (0, 0.31)], mix(animal.nose, colours.PINK, 0.6), MUZZLE + 10)
    _mouth(canvas, 0.38, 0.06, shade(animal.dark, 0.6))
    _whiskers(canvas, (0.16, 0.36), animal)
