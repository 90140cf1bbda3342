"""Neighbour: facing edges, gradients and colour offsets alone do not tell the class, content does."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.neighbour import GREY, SPREAD, Neighbour

COUNT, SIDE = 1600, 48
NEAR_CHANCE = (0.41, 0.59)  # three standard errors of an AUC from 400 pairs


def gradients() -> Tensor:
    """(COUNT, 3, SIDE, SIDE): a plane of random slope in each channel, without noise."""
    slopes = torch.rand(COUNT, 3, 2, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    axis = torch.linspace(-0.5, 0.5, SIDE)
    return 0.5 + slopes[:, :, 0] * axis[:, None] + slopes[:, :, 1] * axis[None]


def texture() -> Tensor:
    """(COUNT, 1, SIDE, SIDE): smooth noise."""
    noise = torch.rand(COUNT, 1, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, size=(SIDE, SIDE), mode="bilinear")


def aberrated() -> Tensor:
    """(COUNT, 3, SIDE, SIDE): grey texture whose green is 6 % larger than red and blue, as through a simple lens."""
    grey = texture()
    scale = torch.tensor([[0.94, 0.0, 0.0], [0.0, 0.94, 0.0]]).expand(COUNT, -1, -1)
    green = F.grid_sample(grey, F.affine_grid(scale, list(grey.shape), align_corners=False), align_corners=False)
    return torch.cat((grey, green, grey), dim=1)


def striped() -> Tensor:
    """(COUNT, 3, SIDE, SIDE): the direction of grey stripes tells the place in a 3 x 3 grid, their phase is random."""
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    angle = (row * 3 // SIDE * 3 + column * 3 // SIDE) * torch.pi / 9
    phase = torch.rand(COUNT, 1, 1, 1, generator=torch.Generator().manual_seed(2)) * 6.28
    wave = torch.sin((angle.cos() * column + angle.sin() * row) * 1.2 + phase)
    return (0.5 + 0.3 * wave).expand(-1, 3, -1, -1)


def pairs(pretext: Neighbour, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The left and right patches (n, 3, p, p) of all pairs that lie side by side, and the class (n,)."""
    draw = pretext.sample(Keys(0, 0, torch.arange(len(images))), (3, SIDE, SIDE))
    beside = ~draw["down"]
    seen = pretext.corrupt(images, draw)[beside]
    one = {key: value[beside][:1] for key, value in draw.items()}
    canvas = Neighbour(gap_ratio=pretext.gap_ratio, colours="keep").corrupt(torch.zeros(1, 3, SIDE, SIDE), one)
    rows, columns = ((canvas[0, 0] != GREY).any(axis).nonzero()[:, 0] for axis in (1, 0))
    halves = (columns[: len(columns) // 2], columns[len(columns) // 2 :])
    left, right = (seen[:, :, rows][..., half] for half in halves)
    return left, right, draw["true"][beside]


def auc(features: list[Tensor], true: Tensor) -> float:
    """Area under the ROC curve of the nearest neighbours' vote, fitted on one half and scored on the other."""
    values = torch.stack(features, dim=1).numpy()
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)  # 1e-6: rounding must not become a feature
    half = len(values) // 2
    model = KNeighborsClassifier(25).fit(values[:half], true[:half].numpy())
    return float(roc_auc_score(true[half:].numpy(), model.predict_proba(values[half:])[:, 1]))


def edge_auc(pretext: Neighbour) -> float:
    """AUC of the two facing edges and the slope towards them, in one colour channel."""
    left, right, true = pairs(pretext, gradients())
    near, far = left[:, 0, :, -1].mean(1), right[:, 0, :, 0].mean(1)
    slopes = [near - left[:, 0, :, -4].mean(1), right[:, 0, :, 3].mean(1) - far]
    return auc([far - near, near, far, *slopes], true)


def offset_auc(pretext: Neighbour) -> float:
    """AUC of the offset of green from red, down and across, in both patches."""
    left, right, true = pairs(pretext, aberrated())
    return auc([offset for patch in (left, right) for offset in offsets(patch)], true)


def offsets(patch: Tensor) -> list[Tensor]:
    """The shift (n,) of green from red down and across, by least squares on the gradient of red."""
    red, difference = patch[:, 0], (patch[:, 1] - patch[:, 0])[:, 1:-1, 1:-1].flatten(1)
    down = (red[:, 2:, 1:-1] - red[:, :-2, 1:-1]).flatten(1) / 2
    across = (red[:, 1:-1, 2:] - red[:, 1:-1, :-2]).flatten(1) / 2
    slopes = torch.stack((down, across), dim=2)  # (n, pixels, 2)
    gram = slopes.transpose(1, 2) @ slopes + 1e-4 * torch.eye(2)
    return list(torch.linalg.solve(gram, slopes.transpose(1, 2) @ difference[..., None])[..., 0].T)


def directions(patch: Tensor) -> list[Tensor]:
    """The direction of stripes (n,), as cosine and sine of twice the angle."""
    down = (patch[:, 0, 2:, 1:-1] - patch[:, 0, :-2, 1:-1]).flatten(1)
    across = (patch[:, 0, 1:-1, 2:] - patch[:, 0, 1:-1, :-2]).flatten(1)
    twice = torch.stack(((across.square() - down.square()).sum(1), (2 * across * down).sum(1)))
    return list(F.normalize(twice, dim=0))


@pytest.mark.parametrize("colours", ["drop", "project"])
def test_facing_edges_of_gradients_do_not_tell_neighbours(colours: str) -> None:
    assert NEAR_CHANCE[0] < edge_auc(Neighbour(colours=colours)) < NEAR_CHANCE[1]


@pytest.mark.parametrize("colours", ["drop", "project"])
def test_chromatic_aberration_does_not_tell_neighbours(colours: str) -> None:
    assert NEAR_CHANCE[0] < offset_auc(Neighbour(colours=colours)) < NEAR_CHANCE[1]


def test_both_tell_neighbours_where_colours_are_kept() -> None:
    assert edge_auc(Neighbour(colours="keep")) > 0.8
    assert offset_auc(Neighbour(colours="keep")) > 0.7


@pytest.mark.parametrize("colours", ["drop", "project", "keep"])
def test_content_tells_neighbours(colours: str) -> None:
    left, right, true = pairs(Neighbour(colours=colours), striped())
    assert auc([*directions(left), *directions(right)], true) > 0.8


def test_patches_have_one_mean_and_contrast_and_drop_keeps_one_channel() -> None:
    images = aberrated()[:200] * 0.3
    for patch in pairs(Neighbour(colours="drop"), images)[:2]:
        torch.testing.assert_close(patch.mean((2, 3)), torch.full(patch.shape[:2], GREY), atol=2e-2, rtol=0)
        torch.testing.assert_close(patch.std((2, 3)), torch.full(patch.shape[:2], SPREAD), atol=2e-2, rtol=0)
        assert torch.equal(patch[:, 0], patch[:, 1]) and torch.equal(patch[:, 0], patch[:, 2])
    draw = Neighbour().sample(Keys(0, 0, torch.arange(6000)), (3, SIDE, SIDE))["channel"]
    table = np.histogram2d(*draw.T.numpy(), bins=3)[0]
    assert abs(table - 6000 / 9).max() < 120, "the patches' channels are independent"


def test_projection_removes_green_against_magenta_only() -> None:
    images = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    patch = pairs(Neighbour(colours="project"), images)[0]
    axis = torch.tensor([-1.0, 2.0, -1.0])[:, None, None]
    inside = ((patch > 0) & (patch < 1)).all(1)
    assert (patch * axis).sum(1)[inside].abs().max() < 1e-5
    assert (patch[:, 0] - patch[:, 2])[inside].std() > 0.1


def test_a_flat_patch_stays_flat() -> None:
    images = 0.3 + 0.001 * torch.rand(50, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    assert pairs(Neighbour(), images)[0].std() < 0.01


def test_projection_needs_three_channels() -> None:
    Neighbour(colours="drop").check((1, SIDE, SIDE))
    with pytest.raises(UserError, match=r"neighbour\.colours project needs RGB images; these have 1 channels"):
        Neighbour(colours="project").check((1, SIDE, SIDE))
