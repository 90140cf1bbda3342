"""Figures of probes: the tests count elements, not pixels."""

import numpy as np
import pytest

from vision_mtl.viz.probes import MARKERS, confusion_figure, embedding_figure, scores_figure, values_figure


def score(value: float, low: float | None, high: float | None) -> dict:
    return {"value": value, "low": low, "high": high}


def test_a_dot_per_method_with_the_same_colour_in_all_rows() -> None:
    found = {
        "cars": {"linear": score(0.6, 0.5, 0.7), "linear_random_init": score(0.4, None, None)},
        "pets": {"linear": score(0.8, 0.7, 0.9)},
    }
    figure = scores_figure(found, "accuracy")
    dots = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS]
    assert [line.get_xdata()[0] for line in dots] == [0.6, 0.4, 0.8]
    assert dots[0].get_color() == dots[2].get_color() != dots[1].get_color()
    assert dots[1].get_ydata()[0] > dots[0].get_ydata()[0]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["linear", "linear random init", "linear"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["cars", "pets"]
    assert scores_figure({}, "accuracy") is None


@pytest.mark.parametrize(("size", "numbers", "names"), [(3, 9, 3), (20, 0, 20), (60, 0, 0)])
def test_small_confusion_matrices_show_counts_and_names(size: int, numbers: int, names: int) -> None:
    counts = np.arange(size * size).reshape(size, size)
    figure = confusion_figure(counts, [f"class {k}" for k in range(size)], "title")
    axes = figure.axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares.sum(1), 1)
    assert len(axes.texts) == numbers
    assert sum(label.get_text().startswith("class") for label in axes.get_yticklabels()) == names
    assert figure.get_suptitle() == "title"


def test_an_empty_row_is_blank() -> None:
    figure = confusion_figure(np.array([[2, 2], [0, 0]]), ["a", "b"], "")
    assert figure.axes[0].images[0].get_array().tolist() == [[0.5, 0.5], [0, 0]]


def test_maps_distinguish_up_to_twenty_classes() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    figure = embedding_figure(points, np.arange(40) % 20, [f"c{k}" for k in range(20)], "t")
    lines = figure.axes[0].lines
    assert sum(len(line.get_xdata()) for line in lines) == 40
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20
    assert len(figure.legends[0].get_texts()) == 20
    assert not embedding_figure(points, np.arange(40) % 30, [f"c{k}" for k in range(30)], "t").legends
    cloud = values_figure(points, points[:, 0], "t", "age").axes[0].collections[0]
    np.testing.assert_array_equal(cloud.get_array(), points[:, 0])
