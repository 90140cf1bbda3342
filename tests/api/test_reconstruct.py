"""`run.reconstruct`: any damage that a head can undo, on any images, and numbers that agree with the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vision_mtl.api.loaded_run import LoadedRun
from vision_mtl.core.errors import UserError

PRETEXTS = ("grid_mask", "decolorise", "downsample", "blur", "chain", "rotation", "neighbour")


@pytest.fixture
def images(pretrained: LoadedRun, photos: Path) -> torch.Tensor:
    return pretrained.images(photos)[:5]


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_pretext_has_pictures_and_a_skill(pretrained: LoadedRun, images: torch.Tensor, name: str) -> None:
    found = pretrained.reconstruct(images, name)
    assert len(found) == len(found.names) == len(found.skills) == 5 and np.isfinite(found.skill)
    assert torch.equal(found.original, images) and found.damaged.shape == images.shape
    assert "<img" in found._repr_html_() and len(found._repr_html_()) < 300_000
    if found.repaired is None:
        assert found.probabilities.sum(1) == pytest.approx(1, abs=1e-5) and len(found.predicted) == len(found.true) == 5
        assert len(found.class_names) == found.probabilities.shape[1]
        with pytest.raises(UserError, match="repairs nothing"):
            found.pictures("repaired")
    else:
        error = (found.repaired - found.original).abs().mean(1, keepdim=True)
        assert torch.allclose(found.error, error, atol=1e-6) and found.error.max() > 0
        assert found.pictures("damaged")[0].size == (32, 32)


def test_views_are_compared_and_have_no_damage_to_name(pretrained: LoadedRun, images: torch.Tensor) -> None:
    found = pretrained.reconstruct(images, "contrast")
    assert len(found) == 10 and found.names[0] == found.names[1] and torch.equal(found.original[0::2], images)
    assert (
        found.predicted is None
        and found.repaired is None
        and np.isfinite(found.skill)
        and "<img" in found._repr_html_()
    )
    with pytest.raises(UserError, match="no damage to name"):
        pretrained.reconstruct(images, "contrast", damage="views")


def test_the_skill_is_that_of_the_pixels(pretrained: LoadedRun, images: torch.Tensor) -> None:
    found = pretrained.reconstruct(images, "downsample", factor=8)
    errors = [(one - found.original).square().mean((1, 2, 3)) for one in (found.repaired, found.classic)]
    assert found.skills.numpy() == pytest.approx((1 - errors[0] / errors[1]).numpy(), abs=1e-4)
    assert found.skill == pytest.approx(float(1 - errors[0].sum() / errors[1].sum()), abs=1e-4)


@pytest.mark.parametrize(("grid", "rows", "columns"), [(2, 2, 2), ("3x5", 3, 5), ((4, 8), 4, 8)])
def test_any_cell_of_any_grid_is_hidden(
    pretrained: LoadedRun, images: torch.Tensor, grid: object, rows: int, columns: int
) -> None:
    found = pretrained.reconstruct(images, "grid_mask", grid=grid, cell=(1, columns - 1))
    changed = (found.damaged != found.original).any(1).numpy()
    top, left = -(-32 // rows), 32 - 32 // columns  # cells are equal to a pixel
    assert changed[:, top:, left:].any() and not changed[:, : top - 1].any() and not changed[:, :, : left - 1].any()
    outside = ~(found.damaged != found.original).any(1, keepdim=True)
    assert torch.equal(torch.where(outside, found.repaired, 0), torch.where(outside, found.original, 0))


def test_a_cell_wins_over_how_the_head_was_trained_and_all_cells_can_be_asked(
    pretrained: LoadedRun, images: torch.Tensor
) -> None:
    one = pretrained.reconstruct(images[:1], "grid_mask", grid=3, cell=(0, 1), hidden="ratio")
    named = pretrained.reconstruct(images[:1], "grid_mask", grid=3, damage="3x3/r0c1")
    assert torch.equal(one.repaired, named.repaired)
    every = pretrained.reconstruct(images[:2], "grid_mask", grid=3, instances_per_image="all")
    assert len(every) == 18 and every.names == ["image 0"] * 9 + ["image 1"] * 9
    assert "the first 8 of 18 instances" in every._repr_html_()
    matches = [torch.equal(one.damaged[0], damaged) for damaged in every.damaged[:9]]
    assert sum(matches) == 1


def test_draws_follow_the_seed(pretrained: LoadedRun, images: torch.Tensor) -> None:
    first, again, other = (pretrained.reconstruct(images, "grid_mask", seed=seed).damaged for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("grid_masc", {}, "Did you mean 'grid_mask'"),
        ("grid_mask", {"gird": 3}, "Did you mean 'grid'"),
        ("grid_mask", {"grid": 64}, "does not fit an image of 32 x 32"),
        ("grid_mask", {"grid": 3, "cell": (3, 0)}, "rows and columns from 0; found"),
        ("grid_mask", {"grid": [2, 3], "cell": (0, 0)}, "cell needs one grid"),
        ("grid_mask", {"damage": "4x4/r9c0"}, "unknown damage"),
        ("grid_mask", {"cell": (0, 0), "damage": "4x4/r0c0"}, "give one"),
        ("grid_mask", {"residual": False}, "defines its output: it cannot be False"),
        ("grid_mask", {"fill": "learned"}, "learned_fill was False"),
        ("decolorise", {"answer": "classify"}, "answer was regress"),
        ("downsample", {"factor": 64}, "exceeds the image's 32 pixels"),
        ("downsample", {"factor": "many"}, "must be a whole number or list"),
        ("downsample", {"cell": (0, 0)}, "cell is for grid_mask"),
    ],
)
def test_what_cannot_be_is_said(
    pretrained: LoadedRun, images: torch.Tensor, name: str, options: dict, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        pretrained.reconstruct(images, name, **options)
