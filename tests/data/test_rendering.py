"""The rendered sets: one light for all shapes, colours that belong to things, labels that colours do not tell."""

from pathlib import Path

import numpy as np
import pytest

from vision_mtl.data.rendering import colours
from vision_mtl.data.rendering.canvas import SIDE, Light, Pose, ellipse_points, lit, object_canvas, rounded
from vision_mtl.data.rendering.colours import along, mix, pick, shade
from vision_mtl.data.source import open_source

GREY = (128.0, 128.0, 128.0)


def ball(light: Light, shadow: float = 0.0) -> np.ndarray:
    """(SIDE, SIDE) brightness of a grey ball in front of a grey wall."""
    scene = np.full((SIDE, SIDE, 4), (*GREY, 0), np.uint8)
    canvas = object_canvas(scene, Pose())
    canvas.ellipse((0, 0), (0.5, 0.5), GREY, 150)
    return lit(canvas, light, np.random.default_rng(0), shadow=shadow).mean(2)


@pytest.mark.parametrize("x", [-0.8, 0.8])
def test_the_side_towards_the_light_is_brighter(x: float) -> None:
    image = ball(Light(x, -0.6, 1.0))
    left, right = image[40:56, 26:30].mean(), image[40:56, 66:70].mean()
    assert (right > left + 30) == (x > 0) and abs(right - left) > 30
    assert image[26:30, 40:56].mean() > image[66:70, 40:56].mean() + 20, "the light comes from above"


def test_the_shadow_falls_away_from_the_light() -> None:
    light = Light(-0.8, -0.6, 1.0)
    darker = ball(light) - ball(light, shadow=0.4)
    assert darker[:, 74:80].max() > 20, "right of the ball"
    assert darker[:, :22].max() < 2 and darker[40:56, 40:56].max() < 2, "neither towards the light nor on the ball"


def test_a_pose_maps_points_to_pixels() -> None:
    matrix, offset = Pose(0.5, (0.5, -0.5), mirrored=True).matrix(100)
    assert np.allclose((np.array([[1.0, 1.0], [0.0, 0.0]]) @ matrix + offset) / 16, [[50, 50], [75, 25]])
    matrix, offset = Pose(degrees=90).matrix(100)
    assert np.allclose((np.array([[1.0, 0.0]]) @ matrix + offset) / 16, [[50, 100]]), "clockwise, y down"


def test_shapes() -> None:
    assert np.allclose(ellipse_points((1, 2), (3, 1), count=5), [[4, 2], [1, 3], [-2, 2], [1, 1], [4, 2]])
    assert np.allclose(ellipse_points((0, 0), (3, 1), 90, count=5)[0], [0, 3])
    square = rounded([(0, 0), (1, 0), (1, 1), (0, 1)], 1, cut=0.25)
    assert square.tolist()[:2] == [[0.25, 0], [0.75, 0]] and len(square) == 8


def test_colours() -> None:
    assert mix((0, 0, 0), (100, 200, 40), 0.25) == (25, 50, 10) and shade((100, 200, 0), 2) == (200, 255, 0)
    assert along([(0, 0, 0), (10, 10, 10), (30, 30, 30)], 0.75) == (20, 20, 20) and along(((0, 0, 0), GREY), 1) == GREY
    random = np.random.default_rng(0)
    found = np.array([pick(random, [(250.0, 128.0, 2.0)]) for _ in range(300)])
    assert found.min() >= 0 and found.max() <= 255 and np.abs(found[:, 1] - 128).max() < 128 * 0.08 + colours.HUES


def test_the_sky_is_above_the_road() -> None:
    source = open_source("rendered/cars", Path())
    images = np.stack([source.read(item) for item in source.items()[::160]]).astype(float)
    blue = images[..., 2] - images[..., 0]
    assert (images[:, :6].mean((1, 2, 3)) > images[:, -6:].mean((1, 2, 3))).mean() > 0.8, "and brighter"
    assert (blue[:, :6].mean((1, 2)) > blue[:, -6:].mean((1, 2))).mean() > 0.8, "and bluer"


@pytest.mark.parametrize("name", ["faces", "pets"])
def test_colours_do_not_tell_the_label(name: str) -> None:
    source = open_source(f"rendered/{name}", Path())
    items = source.items()
    step = max(1, len(items) // 600)
    means = np.array([source.read(item).mean((0, 1)) for item in items[::step]])
    labels = np.array([item.labels["label"] for item in items[::step]])
    classes, numbers = np.unique(labels, return_inverse=True)
    centres = np.stack([means[::2][numbers[::2] == c].mean(0) for c in range(len(classes))])
    nearest = np.linalg.norm(means[1::2, None] - centres, axis=2).argmin(1)
    assert (nearest == numbers[1::2]).mean() < 1 / len(classes) + 0.15
