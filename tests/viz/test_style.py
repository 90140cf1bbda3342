"""Names are drawn literally, with any characters."""

import numpy as np
import pytest

from vision_mtl.viz.style import new_figure


@pytest.mark.parametrize("name", ["$\\bad{", "<script>alert(1)</script>", "a_b^c", "%s {x}", "1 $ and 2 $", "\\frac"])
def test_a_name_is_drawn_literally(name: str) -> None:
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.set_title(name)
    axes.set_xticks([0], [name])
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).std() > 1
    assert axes.get_title() == name and not axes.title.get_parse_math()
