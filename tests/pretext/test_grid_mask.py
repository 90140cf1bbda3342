"""Grid masking against slow loops: cells, pixels and losses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.models.visible import hidden_tokens
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.inpainting import inpaint
from vision_mtl.pretext.smooth import fill_smoothly, visible_mean

SHAPE = (3, 48, 64)


def keys(count: int, epoch: int = 0) -> Keys:
    return Keys(0, epoch, torch.arange(count))


def masks_of(pretext: GridMask, count: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return pretext.mask(pretext.sample(keys(count), shape), shape)


def slow_cell(pixel: int, length: int, cells: int) -> int:
    """The cell of a pixel, found by a loop over the borders."""
    return next(c for c in range(cells) if c * length // cells <= pixel < (c + 1) * length // cells)


def cells_hidden(mask: Tensor, rows: int, columns: int) -> list[tuple[int, int]]:
    """The hidden cells of a mask (1, H, W); fails if a cell is hidden partly."""
    height, width = mask.shape[-2:]
    found: dict[tuple[int, int], set[bool]] = {}
    for y in range(height):
        for x in range(width):
            cell = slow_cell(y, height, rows), slow_cell(x, width, columns)
            found.setdefault(cell, set()).add(bool(mask[0, y, x]))
    assert all(len(values) == 1 for values in found.values())
    return sorted(cell for cell, values in found.items() if values == {True})


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(12, 40), st.integers(12, 40))
def test_exactly_one_whole_cell_whatever_the_size(rows: int, columns: int, height: int, width: int) -> None:
    pretext = GridMask(grid=f"{rows}x{columns}")
    for mask in masks_of(pretext, 3, (3, height, width)):
        assert len(cells_hidden(mask, rows, columns)) == 1


def test_every_cell_is_hidden_equally_often() -> None:
    draw = GridMask(grid=4).sample(keys(16_000), SHAPE)
    counts = draw["cells"].sum(0).double()
    assert bool(((counts - 1000).abs() < 5 * 1000**0.5).all())


def test_grids_are_drawn_from_a_list_in_equal_shares() -> None:
    pretext = GridMask(grid=[2, "3x5", 8])
    draw = pretext.sample(keys(3000), SHAPE)
    assert bool(((draw["grid"].bincount() - 1000).abs() < 150).all())
    sizes = {0: (2, 2), 1: (3, 5), 2: (8, 8)}
    for which, mask in list(zip(draw["grid"].tolist(), pretext.mask(draw, SHAPE), strict=True))[:9]:
        assert len(cells_hidden(mask, *sizes[which])) == 1


@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.6, 0.75, 0.99])
def test_ratio_hides_its_share_and_never_none_or_all(ratio: float) -> None:
    draw = GridMask(grid=4, hidden="ratio", ratio=ratio).sample(keys(200), SHAPE)
    expected = min(max(round(ratio * 16), 1), 15)
    assert bool((draw["cells"].sum(1) == expected).all())
    assert len(draw["cells"].unique(dim=0)) > 10


def test_after_hides_everything_past_a_point_in_raster_order() -> None:
    cells = GridMask(grid=4, hidden="after").sample(keys(400), SHAPE)["cells"]
    for row in cells.tolist():
        first = row.index(True)
        assert first >= 1 and all(row[first:])
    assert cells.int().argmax(1).unique().tolist() == list(range(1, 16))


@pytest.mark.parametrize(("grid", "middle"), [(3, [4]), (4, [5, 6, 9, 10]), ("3x5", [7]), ("3x4", [5, 6])])
def test_centre_and_all_but_centre(grid: int | str, middle: list[int]) -> None:
    centre = GridMask(grid=grid, hidden="centre").sample(keys(1), SHAPE)["cells"][0]
    around = GridMask(grid=grid, hidden="all_but_centre").sample(keys(1), SHAPE)["cells"][0]
    assert centre.nonzero().flatten().tolist() == middle
    assert torch.equal(around, ~centre)


def test_enumerate_gives_each_cell_once(images: Tensor) -> None:
    pretext = GridMask(grid=[2, "3x5"])
    repeated, draw = pretext.enumerate(images[:1])
    masks = pretext.mask(draw, SHAPE)
    assert len(repeated) == 4 + 15
    assert bool((masks[:4].sum(0) == 1).all()) and bool((masks[4:].sum(0) == 1).all())


@pytest.mark.parametrize("instances", [1, 5, 16, "all"])
def test_instances_of_one_image_hide_different_cells(instances: int | str) -> None:
    pretext = GridMask(grid=4, instances_per_image=instances)
    count = pretext.num_instances(SHAPE)
    assert count == (16 if instances == "all" else instances)
    which = torch.arange(8).repeat_interleave(count)
    draw = pretext.sample(Keys(0, 0, which, instance=torch.arange(count).repeat(8)), SHAPE)
    for image in range(8):
        rows = draw["cells"][which == image]
        assert len(rows.unique(dim=0)) == count and bool((rows.sum(1) == 1).all())


@pytest.mark.parametrize("fill", ["mean", "zero", "noise"])
def test_fills(images: Tensor, fill: str) -> None:
    pretext = GridMask(fill=fill)
    draw = pretext.sample(keys(6), SHAPE)
    mask, damaged = pretext.mask(draw, SHAPE), pretext.corrupt(images, draw)
    assert torch.equal(damaged[~mask.expand_as(damaged)], images[~mask.expand_as(images)])
    for image, hidden, seen in zip(images, mask, damaged, strict=True):
        inside = seen[:, hidden[0]]
        if fill == "mean":
            expected = image[:, ~hidden[0]].mean(1, keepdim=True)
            torch.testing.assert_close(inside, expected.expand_as(inside), atol=1e-5, rtol=0)
        elif fill == "zero":
            assert not inside.any()
        else:
            assert 0.2 < inside.std() < 0.4


@pytest.mark.parametrize("residual", [True, False])
def test_loss_is_the_mean_over_hidden_pixels(images: Tensor, residual: bool) -> None:
    pretext = GridMask(hidden="ratio", ratio=0.4, residual=residual)
    draw = pretext.sample(keys(6), SHAPE)
    mask = pretext.mask(draw, SHAPE)
    prediction = torch.randn(6, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 0.1
    base = fill_smoothly(images, mask) if residual else visible_mean(images, mask).expand_as(images)
    for row, value in enumerate(pretext.loss(prediction, images, draw)):
        hidden = mask[row].expand(3, -1, -1)
        error = (base[row] + prediction[row] - images[row])[hidden]
        assert value.item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_the_reference_is_opencv(images: Tensor) -> None:
    pretext = GridMask()
    draw = pretext.sample(keys(6), SHAPE)
    assert torch.equal(pretext.reference(images, draw), inpaint(images, pretext.mask(draw, SHAPE)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": "4by4"}, r"grid must be cells per side.*'4by4'"),
        ({"grid": []}, "at least one grid"),
        ({"grid": 1}, "at least two cells"),
        ({"hidden": "ratio", "ratio": 1.0}, r"ratio must lie in \(0, 1\); found 1\.0"),
        ({"hidden": "centre", "grid": 2}, "at least 3 x 3"),
        ({"grid": 3, "instances_per_image": 10}, "1 to 9"),
        ({"hidden": "ratio", "instances_per_image": 2}, "needs hidden=one"),
    ],
)
def test_invalid_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        GridMask(**options)


def test_a_grid_finer_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="60x60 does not fit an image of 48 x 64"):
        GridMask(grid=60).check(SHAPE)


HIDING = [
    ({"grid": 4}, (4, 4), 1),
    ({"grid": 4}, (8, 8), 4),
    ({"grid": "2x4", "hidden": "ratio", "ratio": 0.6}, (4, 8), 5 * 4),
    ({"grid": 8, "hidden": "ratio", "ratio": 0.75}, (8, 8), 48),
    ({"grid": 5, "hidden": "ratio"}, (8, 8), None),  # cells of unequal size
    ({"grid": 3, "hidden": "centre"}, (6, 6), 4),
    ({"grid": 4, "hidden": "all_but_centre"}, (4, 4), 12),
    ({"grid": 4, "hidden": "after"}, (4, 4), None),
    ({"grid": [2, 4]}, (4, 4), None),
    ({"grid": 4}, (2, 2), 0),  # a token in several cells
    ({"grid": 4}, (6, 6), 1),  # a token and a half per side
    ({"grid": 4, "hidden": "ratio"}, (6, 6), None),
    ({"grid": 4}, (7, 7), 1),  # enlarged images: a token shows parts of pixels
    ({"grid": 4}, (5, 5), None),
]


@pytest.mark.parametrize(("options", "grid", "count"), HIDING)
def test_hidden_tokens_are_known_if_every_draw_hides_the_same_number(
    options: dict[str, object], grid: tuple[int, int], count: int | None
) -> None:
    pretext, shape = GridMask(**options), (3, 48, 48)
    assert pretext.hidden_tokens(shape, grid) == count
    drawn = hidden_tokens(masks_of(pretext, 40, shape), grid).flatten(1).sum(1)
    assert count is None or drawn.unique().tolist() == [count]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(2, 8),
    st.sampled_from(["one", "ratio", "after"]),
    st.floats(0.05, 0.95),
    st.sampled_from([4, 6, 7, 8, 12, 14, 16, 40, 60]),
)
def test_draws_agree_with_hidden_tokens(rows: int, columns: int, hidden: str, ratio: float, tokens: int) -> None:
    pretext = GridMask(grid=f"{rows}x{columns}", hidden=hidden, ratio=ratio)
    known = pretext.hidden_tokens((3, 48, 48), (tokens, tokens))
    counts = hidden_tokens(masks_of(pretext, 9, (3, 48, 48)), (tokens, tokens)).flatten(1).sum(1)
    assert known is None or counts.unique().tolist() == [known]
