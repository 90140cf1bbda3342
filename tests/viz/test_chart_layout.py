"""Nothing of a chart is cut off, no legend hides a line, and the text is large enough for a paper's column."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from vision_mtl.viz.conflicts import conflicts_figure
from vision_mtl.viz.curves import curves_figure, skill_figure
from vision_mtl.viz.discovery import learning_curves_figure, scales_figure
from vision_mtl.viz.online import online_figure
from vision_mtl.viz.probes import confusion_figure, embedding_figure, scores_figure, values_figure
from vision_mtl.viz.reconstruction import ERROR, Panel, reconstruction_figure
from vision_mtl.viz.skill_maps import SkillMap, skill_maps_figure
from vision_mtl.viz.studies import differences_figure, label_curves_figure
from vision_mtl.viz.style import COLUMN, PAGE, TEXT, short

LONG = "a_task_with_a_name_that_goes_on_and_on_until_its_end"
TASKS = ["cars", LONG, *(f"task_{k}" for k in range(8))]
RANDOM = np.random.default_rng(0)
SCORE = {"value": 0.2, "low": 0.1, "high": 0.3, "learned": True}
PANEL = [("original", np.zeros((1, 4, 4, 3))), (ERROR, np.zeros((1, 4, 4, 3)))]


def curves() -> Figure | None:
    losses = {f"loss.{task}": 1.0 for task in TASKS}
    records = [{"kind": "train", "step": s, "images_seen": 9000 * s, **losses} for s in (1, 2)]
    scores = dict.fromkeys(["new", *TASKS], 0.5)
    return curves_figure([*records, {"kind": "validation", "step": 1, "images_seen": 9000, "tasks": scores}])


def study(fractions: tuple[float, ...]) -> Figure | None:
    shared = {"num_labelled": 27000, "num_validation": 3000, "score": SCORE, "chance": SCORE}
    rows = [{"arm": arm, "fraction": f, **shared} for arm in TASKS for f in fractions]
    return label_curves_figure(rows, TASKS, factor=100, label="accuracy, %")


def differences() -> Figure | None:
    row = {"difference": SCORE, "difference_holm": SCORE}
    rows = [{**row, "verdict": verdict} for verdict in ("helps", "hurts", "equivalent", "undecided")]
    label = "difference in accuracy, points (right of 0: the first arm is better)"
    return differences_figure(rows, [LONG, "a", f"{LONG} - {LONG}", "b"], factor=1, label=label, rope=0.1)


def learning() -> Figure | None:
    rows = [("grid_mask", "4x4"), ("grid_mask", "8x8"), ("downsample", "x4")]
    found = [{"pretext": p, "scale": s, "images_seen": seen, "skill": 0.1} for p, s in rows for seen in (0, 9000)]
    return learning_curves_figure(found)


def online() -> Figure:
    cells = [f"4x4/r{k // 4}c{k % 4}" for k in range(16)]
    rows = [
        {"pretext": "grid_mask", "damage": c, "images_seen": s, "share": 0.1, "skill": 0.1}
        for c in cells
        for s in (0, 9)
    ]
    return online_figure(rows, {("grid_mask", cell): 0.1 for cell in cells})


CHARTS: dict[str, Callable[[], Figure | None]] = {
    "curves": curves,
    "skill": lambda: skill_figure({LONG: {"grid_mask": SCORE, "b": {**SCORE, "value": -9.0}}}, {LONG: {"b": SCORE}}),
    "scores": lambda: scores_figure({task: {"linear probe": SCORE, "kNN": SCORE} for task in TASKS}, "accuracy"),
    "scales": lambda: scales_figure({p: {task: {"x4": SCORE} for task in TASKS} for p in ("blur", "downsample")}),
    "learning": learning,
    "online": online,
    "conflicts": lambda: conflicts_figure(np.arange(3), RANDOM.uniform(-1, 1, (3, 3, 3)), TASKS[:3]),
    "study": lambda: study((0.01, 1.0)),
    "study of one fraction": lambda: study((0.1,)),
    "differences": differences,
    "confusion": lambda: confusion_figure(np.eye(8, dtype=int), [f"{LONG} {k}" for k in range(8)], LONG + LONG),
    "one class": lambda: confusion_figure(np.ones((1, 1), int), ["only"], "title"),
    "embedding": lambda: embedding_figure(RANDOM.normal(size=(20, 2)), np.arange(20), [LONG] * 20, LONG + LONG),
    "values": lambda: values_figure(RANDOM.normal(size=(20, 2)), np.arange(20), "title", LONG),
    "maps": lambda: skill_maps_figure([SkillMap(LONG, np.zeros((8, 8, 3)), [np.zeros((4, 4))], [None])], LONG + LONG),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_fits_on_paper_and_nothing_is_cut_off(name: str) -> None:
    figure = CHARTS[name]()
    assert figure.get_figwidth() == pytest.approx(COLUMN)
    figure.canvas.draw()
    assert_inside(figure)
    for text in figure.findobj(Text):
        assert text.get_fontsize() >= TEXT or not text.get_text(), text
    for axes in figure.axes:  # no legend hides a line
        for legend in [*figure.legends, *filter(None, [axes.get_legend()])]:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent().padded(-2))


def test_a_matrix_of_many_named_classes_is_as_wide_as_a_page() -> None:
    figure = confusion_figure(np.eye(12, dtype=int), [f"{LONG} {k}" for k in range(12)], "title")
    assert figure.get_figwidth() == PAGE
    figure.canvas.draw()
    assert_inside(figure)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == 12, "names that differ at their ends stay different"


def test_the_title_of_a_narrow_picture_is_wrapped_and_the_error_has_a_scale() -> None:
    figure = reconstruction_figure([Panel(f"{LONG} " * 3, PANEL, note=f"{LONG} " * 3)])
    figure.canvas.draw()
    assert_inside(figure)
    (scale,) = figure.axes[0].child_axes
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "30+"]
    box, pictures = scale.get_tightbbox(), figure.axes[0].get_window_extent()
    assert box.x1 <= pictures.x0 and box.y0 >= pictures.y0


def test_a_long_name_keeps_both_ends() -> None:
    assert short("abcdefghij", 7) == "abcd…ij" and short("abc", 3) == "abc"


def assert_inside(figure: Figure) -> None:
    """Raise `AssertionError` if something that is drawn lies outside of the page."""
    page = figure.bbox.padded(0.5)
    titles = [text for text in figure.texts if text.get_text()]
    boxes = {text.get_text(): text.get_window_extent() for text in titles}
    boxes |= {f"legend {k}": legend.get_window_extent() for k, legend in enumerate(figure.legends)}
    boxes |= {f"axes {k}": axes.get_tightbbox() for k, axes in enumerate(figure.axes)}
    for name, box in boxes.items():
        assert page.x0 <= box.x0 and box.x1 <= page.x1, f"{name!r} is cut off at a side"
        assert page.y0 <= box.y0 and box.y1 <= page.y1, f"{name!r} is cut off above or below"
