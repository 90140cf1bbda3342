"""The smooth interpolation: only visible pixels, near the exact solution, better than inpainting on photographs."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.pretext import smooth
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.inpainting import inpaint
from vision_mtl.pretext.smooth import fill_smoothly, visible_mean


def one_cell(images: Tensor, grid: int) -> Tensor:
    pretext = GridMask(grid=grid)
    shape = tuple(images.shape[1:])
    return pretext.mask(pretext.sample(Keys(0, 0, torch.arange(len(images))), shape), shape)


def harmonic(channel: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The exact solution of Laplace's equation with mirrored image borders, by a sparse solver."""
    height, width = channel.shape
    places = {tuple(p): n for n, p in enumerate(np.argwhere(hidden))}
    system, right = lil_matrix((len(places), len(places))), np.zeros(len(places))
    for (y, x), n in places.items():
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            near = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
            system[n, n] += 1
            if near in places:
                system[n, places[near]] -= 1
            else:
                right[n] += channel[near]
    filled = channel.copy()
    filled[hidden] = spsolve(system.tocsr(), right)
    return filled


def test_close_to_the_exact_solution(photographs: Tensor) -> None:
    images = photographs[:6].double()
    mask = one_cell(images, 4)
    found = fill_smoothly(images, mask)
    for image, hidden, filled in zip(images, mask[:, 0].numpy(), found, strict=True):
        exact = np.stack([harmonic(channel, hidden) for channel in image.numpy()])
        assert np.abs(filled.numpy() - exact).mean(where=hidden[None]) < 0.01


def test_linear_ramps_are_continued_exactly_inside() -> None:
    ramp = (torch.arange(64.0)[:, None] + torch.arange(64.0)[None]).expand(1, 3, 64, 64) / 126
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    mask[..., 16:32, 32:48] = True
    assert (fill_smoothly(ramp, mask) - ramp).abs().max() < 0.01


@pytest.mark.parametrize(("grid", "gain"), [(2, 0.05), (4, 0.05), (8, 0.1)])
def test_better_than_classic_inpainting_on_photographs(photographs: Tensor, grid: int, gain: float) -> None:
    mask = one_cell(photographs, grid)
    errors = [
        torch.where(mask, repaired - photographs, 0.0).square().sum().item()
        for repaired in (fill_smoothly(photographs, mask), inpaint(photographs, mask))
    ]
    assert errors[0] < (1 - gain) * errors[1]


def test_an_image_without_a_visible_pixel_becomes_grey() -> None:
    mask = torch.ones(1, 1, 16, 24, dtype=torch.bool)
    unknown = torch.full((1, 3, 16, 24), float("nan"))
    for fill in (fill_smoothly, inpaint):
        assert (fill(unknown, mask) - 0.5).abs().max() < 0.005
    assert torch.equal(visible_mean(unknown, mask), torch.full((1, 3, 1, 1), 0.5))


def test_rows_are_independent_across_chunks(photographs: Tensor) -> None:
    mask = one_cell(photographs, 4)
    whole = fill_smoothly(photographs, mask)
    assert torch.equal(whole[70:71], fill_smoothly(photographs[70:71], mask[70:71]))


def test_inpainting_equals_opencv_to_the_grey_level(photographs: Tensor) -> None:
    import cv2

    mask = one_cell(photographs[:3], 4)
    found = inpaint(photographs[:3], mask)
    for image, hidden, repaired in zip(photographs[:3], mask[:, 0].numpy(), found, strict=True):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy().copy()
        pixels[hidden] = 0  # at image borders OpenCV reads a few hidden pixels
        expected = cv2.inpaint(pixels, hidden.astype("uint8"), 5, cv2.INPAINT_TELEA)
        assert np.array_equal((repaired * 255).round().byte().permute(1, 2, 0).numpy()[hidden], expected[hidden])


@pytest.mark.parametrize("grid", [2, 4, "3x5", 8])
def test_only_pixels_around_the_hole_have_influence(photographs: Tensor, grid: int | str, monkeypatch) -> None:
    pretext = GridMask(grid=grid)
    images = photographs[:12]
    mask = pretext.mask(pretext.sample(Keys(0, 0, torch.arange(12)), tuple(images.shape[1:])), tuple(images.shape[1:]))
    mask[0] = False
    assert smooth._windows(mask) is not None
    quick = fill_smoothly(images, mask)
    monkeypatch.setattr(smooth, "_windows", lambda hidden: None)
    assert torch.allclose(quick, fill_smoothly(images, mask), atol=1e-6)
