"""Figures show their data: the tests count elements, not pixels."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from vision_mtl.viz.curves import curves_figure, skill_figure
from vision_mtl.viz.reconstruction import GAP, Panel, error_map, picture_strip, reconstruction_figure
from vision_mtl.viz.style import save_chart


def score(value: float, low: float | None, high: float | None) -> dict:
    return {"value": value, "low": low, "high": high, "n": 10, "num_clusters": 5}


def test_error_maps_run_from_black_to_the_last_colour() -> None:
    original = np.zeros((1, 1, 3, 3))
    repaired = original + np.array([0.0, 0.15, 0.9])[None, None, :, None]
    colours = error_map(repaired, original)[0, 0]
    scale = matplotlib.colormaps["inferno"]
    np.testing.assert_allclose(colours, [scale(v)[:3] for v in (0.0, 0.5, 1.0)], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_enlarge_without_smoothing_and_leave_gaps(channels: int) -> None:
    images = np.random.default_rng(0).random((3, 32, 16, channels))
    strip = picture_strip(images)
    assert strip.shape == (128 + GAP, 3 * (64 + GAP), 3)
    np.testing.assert_array_equal(strip[:128:4, :64:4, 0], images[0, :, :, 0])
    assert (strip[:, 64 : 64 + GAP] == 1).all() and (strip[128:] == 1).all()


def test_panels_are_aligned_with_their_titles_and_captions() -> None:
    images = np.random.default_rng(0).random((4, 8, 8, 3))
    panels = [
        Panel("first", [("a", images), ("b", images)]),
        Panel("second", [("c", images)], ["w\n+0.1", "x", "y", "z"], "a note"),
    ]
    figure = reconstruction_figure(panels)
    assert [text.get_text() for text in figure.texts if text.get_text()] == ["first", "second", "a note"]
    boxes = [axes.get_position() for axes in figure.axes]
    assert len({round(box.x0, 6) for box in boxes}) == len({round(box.x1, 6) for box in boxes}) == 1
    assert boxes[0].y0 > boxes[1].y1
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["w\n+0.1", "x", "y", "z"]
    figure.canvas.draw()
    inside = figure.bbox
    for axes in figure.axes:
        for label in (*axes.get_yticklabels(), *axes.get_xticklabels()):
            box = label.get_window_extent()
            assert box.x0 >= inside.x0 and box.y0 >= inside.y0
    with pytest.raises(ValueError, match="no panel"):
        reconstruction_figure([])


def test_skill_figure_has_a_dot_per_row_filled_if_learned_and_a_cross_for_the_classic_skill() -> None:
    learned, other = ({**score(*ends), "learned": ends[0] > 0.2} for ends in ((0.3, 0.2, 0.4), (0.1, None, None)))
    scores = {"photos": {"grid_mask": learned, "blur": other}}
    figure = skill_figure(scores, {"photos": {"grid_mask": score(0.5, 0, 0.6)}})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [0.3, 0.1]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "x"] == [0.5]
    figure.canvas.draw()
    note = figure._supxlabel.get_window_extent()
    assert note.x0 >= 0 and note.x1 <= figure.bbox.x1, "nothing is cut off"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["grid_mask", "blur"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["photos"]
    assert skill_figure({}) is None


def test_curves_show_every_pretext_and_task() -> None:
    records = [
        {"kind": "train", "step": s, "images_seen": 64 * s, "loss.blur": 1 / s, "loss.grid": None} for s in (1, 2)
    ]
    records.append({"kind": "train", "step": 3, "images_seen": 192, "loss.blur": 0.3, "loss.grid": 0.9})
    assert len(curves_figure(records).axes) == 1
    records += [{"kind": "probe", "step": s, "tasks": {"pets": {"knn": 0.5, "chance": 0.3}}} for s in (1, 3)]
    assert len(curves_figure(records[:-1]).axes) == 1, "one point is no curve"
    figure = curves_figure(records)  # an older record: its `chance` is the majority's accuracy
    assert figure.axes[1].lines[1].get_ydata() == [0.3, 0.3]
    newer = {"kind": "probe", "step": 3, "tasks": {"pets": {"knn": 0.5, "chance": 0.2, "majority": 0.4}}}
    assert curves_figure([*records[:-1], newer]).axes[1].lines[1].get_ydata() == [0.4, 0.4]
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {"blur", "grid"}
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["pets"]
    figure.canvas.draw()
    for axes in figure.axes:  # no legend covers a line
        assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1
    assert curves_figure([]) is None


def test_evaluations_are_drawn_at_their_images_seen() -> None:
    """Those of older runs, which only know their step, as well: evaluations fall between the lines of training."""
    train = [{"kind": "train", "step": s, "images_seen": 64 * s, "loss.a": 1.0} for s in (1, 10, 20)]
    for known in (True, False):
        found = [
            {"kind": "validation", "step": s, "tasks": {"a": 0.5}} | ({"images_seen": 64 * s} if known else {})
            for s in (4, 13, 20)
        ]
        axes = curves_figure([*train, *found]).axes[1]
        assert axes.lines[0].get_xdata().tolist() == [256, 832, 1280]


def test_the_skill_figure_shows_the_given_names(tmp_path: Path) -> None:
    row = {"a": {**score(0.3, 0.2, 0.4), "learned": True}}
    figure = skill_figure(
        {"csv//data/cars/labels.csv": row, "photos": row}, None, {"csv//data/cars/labels.csv": "cars"}
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["cars", "photos"]
    save_chart(figure, tmp_path, "skill")
    save_chart(None, tmp_path, "none")
    assert {file.name for file in tmp_path.iterdir()} == {"skill.png", "skill.pdf"}
