"""Figures of discovery show their data."""

import numpy as np
import pytest

from vision_mtl.viz.discovery import learning_curves_figure, scales_figure
from vision_mtl.viz.skill_maps import SkillMap, skill_maps_figure


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def test_a_map_has_a_picture_for_each_grid_and_marks_for_kinds() -> None:
    skills = [np.array([[0.5, -0.5], [np.nan, 0.1]]), np.full((6, 6), 0.2)]
    kinds = [
        np.array([["learnable", "hopeless"], ["trivial", "hopeless"]], object),
        np.full((6, 6), "learnable", object),
    ]
    figure = skill_maps_figure([SkillMap("a", np.random.default_rng(0).random((16, 24, 3)), skills, kinds)], "title")
    first, second, _ = figure.axes  # and the colour bar
    assert [text.get_text() for text in first.texts] == ["+.50", "-.50", "+.10"] and not second.texts
    assert sorted(line.get_marker() for line in first.lines) == ["o", "x"] and len(second.lines) == 36
    assert first.get_title() == "2 x 2" and len(first.patches) == 4
    assert skill_maps_figure([], "title") is None


def test_cells_have_their_position_in_the_picture() -> None:
    figure = skill_maps_figure([SkillMap("a", np.zeros((16, 24, 1)), [np.array([[0.1, 0.2]])], [None])], "")
    left, right = figure.axes[0].patches
    assert left.get_xy() == pytest.approx((-0.5, -0.5)) and right.get_xy() == pytest.approx((11.5, -0.5))
    assert right.get_width() == 12 and right.get_height() == 16


def test_scales_have_an_interval_each() -> None:
    scores = {"x2": score(0.1), "x4": score(0.4)}
    figure = scales_figure(
        {"downsample": {"a": scores, "b": {"x4": score(0.2)}}, "decolorise": {"a": {"grey": score(0)}}}
    )
    lines = figure.axes[0].lines
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x2", "x4"]
    assert lines[0].get_ydata() == pytest.approx([0.1, 0.4])
    assert sorted(line.get_ydata()[0] for line in lines[1:3]) == pytest.approx([0.0, 0.3])
    assert scales_figure({}) is None


def test_learning_curves_have_a_line_per_scale() -> None:
    rows = [
        {"pretext": "downsample", "scale": scale, "images_seen": seen, "seconds": 1.0, "skill": seen / 100}
        for seen in (10, 20)
        for scale in ("x2", "x4")
    ]
    figure = learning_curves_figure([*rows, {**rows[0], "pretext": "decolorise", "scale": "grey", "skill": None}])
    assert [line.get_label() for line in figure.axes[0].lines[:2]] == ["x2", "x4"]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([0.1, 0.2]) and len(figure.axes) == 2
    assert learning_curves_figure([]) is None
