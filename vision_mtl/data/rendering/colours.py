"""Colours of things: each kind has a short list of typical colours, whose brightness mostly tells the hue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]  # RGB in [0, 255]
HUES = 4.0  # of 255: how far a channel of a picked colour varies on its own

LEAVES: tuple[Colour, ...] = ((58, 98, 48), (74, 118, 52), (88, 128, 62), (48, 84, 50))
GRASS: tuple[Colour, ...] = ((98, 142, 66), (112, 150, 74), (84, 128, 60))
BARK: Colour = (92, 68, 50)
ASPHALT: tuple[Colour, ...] = ((92, 92, 96), (108, 107, 108), (80, 81, 86))
PAVEMENT: tuple[Colour, ...] = ((176, 171, 162), (160, 157, 152))
CONCRETE: tuple[Colour, ...] = ((168, 164, 158), (142, 142, 146), (190, 184, 172))
BRICK: tuple[Colour, ...] = ((152, 88, 70), (166, 104, 80), (140, 78, 66))
PLASTER: tuple[Colour, ...] = ((226, 212, 182), (234, 228, 216), (216, 190, 148))
ROOF: tuple[Colour, ...] = ((120, 62, 50), (84, 72, 70), (104, 84, 72))
WINDOW: Colour = (96, 116, 140)
WALLS: tuple[Colour, ...] = (  # of rooms, light to dark
    (236, 228, 212),
    (216, 210, 198),
    (196, 202, 206),
    (170, 182, 164),
    (132, 148, 166),
    (108, 124, 112),
    (84, 92, 108),
)
WOOD: tuple[Colour, ...] = ((150, 108, 72), (122, 84, 56), (178, 138, 96))
FABRIC: tuple[Colour, ...] = ((88, 102, 130), (128, 98, 82), (150, 148, 146), (92, 112, 96), (190, 176, 156))
CLOTHES: tuple[Colour, ...] = (  # light to dark, so that the brightness hints at the hue
    (238, 236, 232),
    (206, 198, 184),
    (226, 178, 78),
    (132, 156, 186),
    (188, 68, 60),
    (66, 94, 146),
    (54, 86, 64),
    (104, 46, 58),
    (40, 52, 88),
    (40, 40, 46),
)
PAINTS: tuple[Colour, ...] = (  # the usual paints of cars; white, silver, grey and black are the most frequent
    (238, 238, 236),
    (238, 238, 236),
    (186, 190, 194),
    (186, 190, 194),
    (118, 122, 126),
    (40, 42, 46),
    (40, 42, 46),
    (188, 48, 42),
    (188, 48, 42),
    (38, 68, 126),
    (38, 68, 126),
    (206, 192, 160),
    (44, 80, 60),
    (128, 160, 188),
)
TAXI: Colour = (242, 190, 40)
VANS: tuple[Colour, ...] = ((240, 240, 238), (240, 240, 238), (196, 40, 40), (246, 196, 50), (40, 88, 152))
MINIBUS: tuple[Colour, ...] = ((242, 178, 44), (232, 226, 208), (240, 240, 238))
SKIN: tuple[Colour, ...] = (  # from light to dark, after the ten tones of the Monk scale
    (245, 214, 192),
    (236, 198, 168),
    (218, 174, 138),
    (190, 140, 102),
    (154, 106, 74),
    (118, 78, 54),
    (86, 56, 42),
)
HAIR_DARK: tuple[Colour, ...] = ((34, 28, 28), (52, 38, 32), (44, 36, 34))
HAIR: tuple[Colour, ...] = (*HAIR_DARK, (88, 60, 42), (122, 84, 54), (132, 70, 42), (204, 168, 108), (158, 156, 156))
LIPS: Colour = (178, 62, 72)
PINK: Colour = (232, 162, 156)


def pick(random: np.random.Generator, palette: Sequence[Colour], spread: float = 0.08) -> Colour:
    """Return one of the colours, a little lighter or darker and a little off in hue."""
    place, bright, *hues = random.random(5).tolist()
    factor = 1 + spread * (2 * bright - 1)
    red, green, blue = (
        min(max(value * factor + HUES * (2 * hue - 1), 0.0), 255.0)
        for value, hue in zip(palette[int(place * len(palette))], hues, strict=True)
    )
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour darker (factor below 1) or lighter."""
    return min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return the colour between `one` (share 0) and `other` (share 1)."""
    keep = 1 - share
    return (
        one[0] * keep + other[0] * share,
        one[1] * keep + other[1] * share,
        one[2] * keep + other[2] * share,
    )


def along(ramp: Sequence[Colour], position: float) -> Colour:
    """Return the colour at `position` in [0, 1] along the ramp."""
    place = position * (len(ramp) - 1)
    start = min(int(place), len(ramp) - 2)
    return mix(ramp[start], ramp[start + 1], place - start)
