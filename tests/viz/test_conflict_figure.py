"""The conflict figure draws each pair and the mean of each cell."""

import numpy as np
import pytest

from vision_mtl.viz.conflicts import conflicts_figure


def test_a_curve_per_pair_and_a_map_of_means() -> None:
    cosines = np.full((2, 3, 3), np.nan)
    cosines[:, range(3), range(3)] = 1
    cosines[:, 0, 1] = cosines[:, 1, 0] = [-0.5, 0.25]
    cosines[1, 0, 2] = cosines[1, 2, 0] = 0.5  # the last pair was never measured
    figure = conflicts_figure(np.array([10, 20]), cosines, ["digits", "cars", "pets"])
    left, right = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert curves["digits, cars"] == [[10, -0.5], [20, 0.25]] and curves["digits, pets"] == [[20, 0.5]]
    means = right.images[0].get_array()
    np.testing.assert_allclose(means[0], [1, -0.125, 0.5])
    assert means.mask[1, 2] and right.images[0].get_clim() == (-1, 1)
    assert [text.get_text() for text in right.texts] == ["1.00", "-0.12", "0.50", "-0.12", "1.00", "0.50", "1.00"]
    figure.canvas.draw()


@pytest.mark.parametrize(("n", "names"), [(0, ["a", "b"]), (3, ["a"])])
def test_nothing_to_compare_draws_nothing(n: int, names: list[str]) -> None:
    assert conflicts_figure(np.arange(n), np.ones((n, len(names), len(names))), names) is None


def test_many_pairs_have_distinct_styles() -> None:
    names = [f"task{i}" for i in range(6)]
    left = conflicts_figure(np.arange(4), np.random.default_rng(0).uniform(-1, 1, (4, 6, 6)), names).axes[0]
    styles = {(line.get_color(), line.get_linestyle()) for line in left.lines[:15]}
    assert len(styles) == 15
