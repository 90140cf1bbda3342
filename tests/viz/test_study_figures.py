"""Figures of a study show their data."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vision_mtl.viz.studies import VERDICTS, differences_figure, label_curves_figure
from vision_mtl.viz.style import COLOURS


def score(value: float, width: float | None = 0.1) -> dict:
    low, high = (None, None) if width is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high}


def row(arm: str, fraction: float, value: float, width: float | None = 0.1) -> dict:
    chance = score(0.25)
    return {"arm": arm, "fraction": fraction, "num_labelled": 270, "score": score(value, width), "chance": chance}


def comparison(verdict: str, value: float) -> dict:
    return {"difference": score(value), "difference_holm": score(value, 0.2), "verdict": verdict}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_curve_per_arm_with_its_band_and_chance() -> None:
    rows = [row("b", fraction, value) for fraction, value in ((1.0, 0.7), (0.1, 0.6))]
    rows += [row("a", 0.1, 0.5, None), row("a", 1.0, 0.5)]
    figure = label_curves_figure(rows, ["a", "b", "absent"], factor=100, label="accuracy, %")
    axes = figure.axes[0]
    lines = {
        to_hex(line.get_color()): line
        for line in axes.lines
        if len(line.get_xdata()) == 2 and line.get_marker() != "None"
    }
    assert lines[COLOURS[1].lower()].get_xdata() == pytest.approx([0.1, 1.0])
    assert lines[COLOURS[1].lower()].get_ydata() == pytest.approx([60, 70])
    assert lines[COLOURS[0].lower()].get_ydata() == pytest.approx([50, 50])
    band = axes.collections[1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((50, 80))
    assert texts(figure) == ["a", "b", "chance"] and axes.get_ylabel() == "accuracy, %"
    assert axes.lines[-1].get_ydata() == pytest.approx([25, 25])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10 %\n270", "100 %\n270"]


@pytest.mark.parametrize(("fractions", "scale"), [((0.1, 1.0), "linear"), ((0.05, 1.0), "log")])
def test_distant_fractions_have_a_logarithmic_axis(fractions: tuple[float, ...], scale: str) -> None:
    figure = label_curves_figure([row("a", f, 0.5) for f in fractions], ["a"], factor=1, label="")
    assert figure.axes[0].get_xscale() == scale


def test_a_single_fraction_gives_dots_with_intervals() -> None:
    figure = label_curves_figure([row("a", 0.1, 0.5), row("b", 0.1, 0.6, None)], ["a", "b"], factor=100, label="x")
    chance, interval, first, second = figure.axes[0].lines
    assert chance.get_xdata() == [25, 25] and interval.get_xdata() == pytest.approx([40, 60])
    assert [*first.get_xdata(), *second.get_xdata()] == [50, 60]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    assert label_curves_figure([], ["a"], factor=1, label="") is None


def test_verdicts_differ_in_colour_and_shape() -> None:
    rows = [comparison("helps", 0.3), comparison("hurts", -0.3)]
    rows += [comparison("equivalent", 0.0), comparison("undecided", 0.05)]
    figure = differences_figure(rows, ["first", "second", "third", "fourth"], factor=100, label="points")
    zero, *drawn = figure.axes[0].lines
    assert zero.get_xdata() == [0, 0]
    for number, one in enumerate(rows):
        thin, thick, dot = drawn[3 * number : 3 * number + 3]
        assert thin.get_linewidth() < thick.get_linewidth()
        assert np.ptp(thin.get_xdata()) == pytest.approx(40) and np.ptp(thick.get_xdata()) == pytest.approx(20)
        assert (dot.get_color(), dot.get_marker()) == VERDICTS[one["verdict"]]
        assert dot.get_xdata() == pytest.approx([one["difference"]["value"] * 100])
    assert len(set(VERDICTS.values())) == len({marker for _, marker in VERDICTS.values()}) == 4
    assert [text.get_text() for text in figure.axes[0].texts] == ["first", "second", "third", "fourth"]
    assert "does not matter" not in texts(figure) and not figure.axes[0].patches
    assert differences_figure([], [], factor=1, label="") is None


def test_a_band_shows_the_differences_that_do_not_matter() -> None:
    figure = differences_figure([comparison("equivalent", 0.0)], ["a"], factor=100, label="points", rope=0.01)
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-1, 1))
    assert texts(figure)[-1] == "does not matter"


def test_names_are_drawn_literally() -> None:
    figure = label_curves_figure([row("_$x_1$", f, 0.5) for f in (0.1, 1)], ["_$x_1$"], factor=1, label="$y$")
    figure.canvas.draw()
    assert texts(figure)[0] == "_$x_1$" and figure.axes[0].get_ylabel() == "$y$"
    long = differences_figure([comparison("helps", 1.0)], ["n" * 300], factor=1, label="")
    assert len(long.axes[0].texts[0].get_text().split("\n")) <= 2
