"""The classification pretexts: quarter-turns, and neighbours that only image content reveals."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.neighbour import GREY, Neighbour
from vision_mtl.pretext.rotation import Rotation


def keys(count: int) -> Keys:
    return Keys(0, 0, torch.arange(count))


def test_turns_equal_numpy_and_are_equally_frequent(images: Tensor) -> None:
    square = images[..., :48]
    pretext = Rotation()
    draw = {"turn": torch.tensor([0, 1, 2, 3, 1, 2])}
    for image, seen, turn in zip(square, pretext.corrupt(square, draw), draw["turn"], strict=True):
        assert np.array_equal(seen.numpy(), np.rot90(image.numpy(), int(turn), (1, 2)))
    counts = pretext.sample(keys(8000), (3, 48, 48))["turn"].bincount()
    assert bool(((counts - 2000).abs() < 200).all())


def test_rotation_needs_square_images(images: Tensor) -> None:
    with pytest.raises(UserError, match="square"):
        Rotation().check((3, 48, 64))


def test_label_smoothing_equals_torch(images: Tensor) -> None:
    draw = {"turn": torch.tensor([0, 1, 2, 3, 1, 2])}
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, draw["turn"], label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(Rotation(label_smoothing=0.1).loss(logits, images, draw), expected)


def test_classes_and_directions_are_balanced_and_independent() -> None:
    draw = Neighbour().sample(keys(8000), (3, 64, 64))
    table = torch.stack((draw["true"], draw["down"].long()), 1).unique(dim=0, return_counts=True)[1]
    assert bool(((table - 2000).abs() < 200).all())


@pytest.mark.parametrize("grid", [3, 4])
def test_a_neighbour_follows_the_first_place_and_a_stranger_does_not(grid: int) -> None:
    draw = Neighbour(grid=grid).sample(keys(5000), (3, 96, 96))
    step = torch.where(draw["down"][:, None], torch.tensor([1, 0]), torch.tensor([0, 1]))
    follows = (draw["second"] == draw["first"] + step).all(1)
    assert torch.equal(follows, draw["true"].bool())
    assert not bool((draw["second"] == draw["first"]).all(1).any())
    for place in ("first", "second"):
        assert draw[place].min() >= 0 and draw[place].max() < grid


def test_positions_of_patches_do_not_reveal_the_class(images: Tensor) -> None:
    """The canvas outside the patches is equal for both classes in one direction."""
    pretext = Neighbour(colours="keep")
    draw = pretext.sample(keys(400), (3, 64, 64))
    blank = torch.zeros(400, 3, 64, 64)
    covered = pretext.corrupt(blank, draw) != GREY
    for down in (False, True):
        rows = covered[draw["down"] == down]
        assert len(rows.flatten(1).unique(dim=0)) == 1


def test_patches_are_cut_at_the_drawn_places() -> None:
    """Pixels that contain their coordinates appear on the canvas with the drawn gap and jitter."""
    rows = torch.arange(96.0)[:, None].expand(96, 96) / 200
    columns = torch.arange(96.0)[None].expand(96, 96) / 200
    image = torch.stack((rows, columns, torch.ones(96, 96))).expand(300, -1, -1, -1)
    pretext = Neighbour(gap_ratio=0.25, jitter_ratio=0.1, colours="keep")
    draw = pretext.sample(keys(300), (3, 96, 96))
    seen = pretext.corrupt(image, draw)
    corners = []
    for number in range(300):
        inside = seen[number, 2] == 1
        values = (seen[number, :2, inside] * 200).round()  # (2, n)
        half = values.shape[1] // 2
        parts = (values[:, :half], values[:, half:]) if draw["down"][number] else None
        if parts is not None and draw["true"][number]:
            corners.append((parts[1][0].min() - parts[0][0].max() - 1).item())  # rows left out between the two
    assert min(corners) >= 96 / 3 * (0.25 - 0.01) - 1  # the gap is kept whatever the jitter
    assert len(set(corners)) > 3  # and jitter varies it


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": 2}, "3 or more"),
        ({"gap_ratio": 0.7, "jitter_ratio": 0.2}, "below 0.8"),
        ({"gap_ratio": -1}, "0 or more"),
    ],
)
def test_invalid_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Neighbour(**options)


def test_patches_that_are_too_small_are_refused() -> None:
    with pytest.raises(UserError, match="patches of 4 pixels in an image of 32 x 32"):
        Neighbour(grid=5).check((3, 32, 32))
