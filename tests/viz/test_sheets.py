"""The contact sheet: places of the blocks, captions, width."""

import numpy as np
import pytest

from vision_mtl.viz.sheets import CAPTION, GAP, MARGIN, PITCH, SIDE, TITLE, WIDTH, Block, Section, sheet_figure


def test_a_sheet_puts_blocks_of_a_class_side_by_side() -> None:
    def block(value: float, count: int, caption: str = "") -> Block:
        return Block(np.full((count, 8, 4, 1), value), caption)

    blocks = [block(0.1, 4, "one"), block(0.2, 4, "two"), block(0.3, 0, "none"), block(0.4, 2, "a" * 99)]
    figure = sheet_figure([Section("cars", blocks), Section("pile", [block(0.5, 12)])])
    (axes,) = figure.axes
    sheet = np.asarray(axes.images[0].get_array())
    assert sheet.shape[1] == WIDTH and figure.get_size_inches() * figure.dpi == pytest.approx(sheet.shape[1::-1])
    side, row = 2 * SIDE, TITLE + 2  # images are twice as high as wide; the first row of pixels
    assert np.allclose(sheet[row, MARGIN : MARGIN + SIDE], 0.1) and np.allclose(sheet[row, MARGIN + 4 * PITCH], 0.2)
    assert np.allclose(sheet[row, MARGIN + 8 * PITCH :], 1), "a class without an image"
    assert np.allclose(sheet[row + side + GAP + CAPTION, MARGIN], 0.4), "the fourth block is in the second row"
    texts = {text.get_text() for text in axes.texts}
    assert {"cars", "one", "two", "none", "pile"} <= texts and any(
        text.startswith("aaa") and len(text) < 50 for text in texts
    )
    with pytest.raises(ValueError, match="no picture"):
        sheet_figure([])
