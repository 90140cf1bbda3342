"""The exact interpolation of a hidden cell, against a sparse solver."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pretext.test_smooth import harmonic
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.inpainting import inpaint
from vision_mtl.pretext.laplace_fill import fill_rectangle


def every_cell(images: Tensor, grid: int | str | list[int | str]) -> tuple[GridMask, Tensor, dict[str, Tensor]]:
    """Images in which each cell of the grids is hidden once."""
    pretext = GridMask(grid=grid)
    draw = pretext.enumerate(images[:1])[1]
    count = len(draw["grid"])
    return pretext, images[torch.arange(count) % len(images)], draw


@pytest.mark.parametrize("grid", [2, 4, 5, "3x7", "1x4", "5x1", [2, "3x5"]])
def test_exact_in_every_cell(photographs: Tensor, grid: int | str | list[int | str]) -> None:
    pretext, images, draw = every_cell(photographs[:, :, :40, :52], grid)
    shape = tuple(images.shape[1:])
    mask = pretext.mask(draw, shape)
    unknown = torch.where(mask, float("nan"), images)
    filled = pretext.repair(torch.zeros_like(images), unknown, draw)
    for image, hidden, found in zip(images, mask[:, 0].numpy(), filled, strict=True):
        exact = np.stack([harmonic(channel.astype(np.float64), hidden) for channel in image.numpy()])
        np.testing.assert_allclose(found.numpy(), exact, atol=2e-5)


@pytest.mark.parametrize("grid", [4, "3x5", [2, 8]])
def test_loss_is_the_error_of_the_repair(photographs: Tensor, grid: int | str | list[int | str]) -> None:
    pretext, images, draw = every_cell(photographs, grid)
    mask = pretext.mask(draw, tuple(images.shape[1:])).expand_as(images)
    prediction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).mul(0.1).requires_grad_()
    found = pretext.loss(prediction, images, draw)
    whole = torch.where(mask, images - prediction - pretext._base(images, draw), 0.0).square().sum((1, 2, 3))
    expected = whole / mask.sum((1, 2, 3))
    torch.testing.assert_close(found, expected)
    given, wanted = (torch.autograd.grad(value.sum(), prediction)[0] for value in (found, expected))
    torch.testing.assert_close(given, wanted)


def test_an_image_without_a_visible_pixel_becomes_grey() -> None:
    images = torch.full((2, 3, 8, 8), float("nan"))
    assert torch.equal(
        fill_rectangle(images, torch.zeros(2, 2, dtype=torch.int64), (8, 8)), torch.full_like(images, 0.5)
    )


@pytest.mark.parametrize(("grid", "gain"), [(2, 0.05), (4, 0.05), (8, 0.1)])
def test_better_than_classic_inpainting_on_photographs(photographs: Tensor, grid: int, gain: float) -> None:
    pretext = GridMask(grid=grid)
    shape = tuple(photographs.shape[1:])
    draw = pretext.sample(Keys(0, 0, torch.arange(len(photographs))), shape)
    mask = pretext.mask(draw, shape)
    errors = [
        torch.where(mask, repaired - photographs, 0.0).square().sum().item()
        for repaired in (pretext._base(photographs, draw), inpaint(photographs, mask))
    ]
    assert errors[0] < (1 - gain) * errors[1]
