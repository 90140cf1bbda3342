"""Reduction and blur against OpenCV and kornia's own functions."""

import cv2
import numpy as np
import pytest
import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.blur import Blur
from vision_mtl.pretext.downsample import Downsample, reduce_and_enlarge


def keys(count: int) -> Keys:
    return Keys(0, 0, torch.arange(count))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduction_equals_opencv_area_and_enlargement_torch_bicubic(images: Tensor, factor: int) -> None:
    found = reduce_and_enlarge(images, factor)
    for image, seen in zip(images, found, strict=True):
        small = cv2.resize(image.permute(1, 2, 0).numpy(), (64 // factor, 48 // factor), interpolation=cv2.INTER_AREA)
        large = torch.nn.functional.interpolate(
            torch.from_numpy(small).permute(2, 0, 1)[None], size=(48, 64), mode="bicubic"
        )
        torch.testing.assert_close(seen, large[0].clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "factor"), [((96, 130), 2), ((100, 64), 4), ((131, 97), 5)])
def test_large_images_in_bands(size: tuple[int, int], factor: int) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.adaptive_avg_pool2d(images, [-(-side // factor) for side in size])
    large = torch.nn.functional.interpolate(small, size=size, mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(reduce_and_enlarge(images, factor), large, atol=2e-6, rtol=0)


def test_a_factor_that_does_not_divide_keeps_constants_and_size() -> None:
    image = torch.full((1, 3, 61, 47), 0.3)
    torch.testing.assert_close(reduce_and_enlarge(image, 4), image)


def test_detail_finer_than_the_factor_is_removed() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2).float().expand(1, 3, 64, 64)
    torch.testing.assert_close(reduce_and_enlarge(checks, 2), torch.full_like(checks, 0.5))


@pytest.mark.parametrize("pretext", [Downsample(factor=[2, 4, 8]), Blur(sigma=[0.5, 1.0, 3.0])])
def test_a_list_is_drawn_from_for_each_image(pretext: Downsample | Blur, images: Tensor) -> None:
    (name,) = pretext.sample(keys(1), (3, 48, 64))
    drawn = pretext.sample(keys(3000), (3, 48, 64))[name]
    values, counts = drawn.unique(return_counts=True)
    assert len(values) == 3 and bool(((counts - 1000).abs() < 150).all())
    draw = pretext.sample(keys(6), (3, 48, 64))
    damaged = pretext.corrupt(images, draw)
    for row in range(6):
        alone = pretext.corrupt(images[row : row + 1], {name: draw[name][row : row + 1]})
        torch.testing.assert_close(alone[0], damaged[row], atol=1e-6, rtol=0)


def test_blur_equals_kornia(images: Tensor) -> None:
    found = Blur(sigma=1.5).corrupt(images, {"sigma": torch.full((6,), 1.5)})
    expected = gaussian_blur2d(images, (11, 11), (1.5, 1.5), border_type="reflect")
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-6, rtol=0)


def test_unsharp_masking_is_the_stronger_reference(photographs: Tensor) -> None:
    pretext = Blur(sigma=2.0)
    draw = pretext.sample(keys(len(photographs)), (3, 64, 64))
    blurred = (pretext.corrupt(photographs, draw) - photographs).square().mean()
    sharpened = (pretext.reference(photographs, draw) - photographs).square().mean()
    assert sharpened < blurred


@pytest.mark.parametrize("pretext", [Downsample(), Blur()])
def test_losses_are_mean_squares(pretext: Downsample | Blur, images: Tensor) -> None:
    draw = pretext.sample(keys(6), (3, 48, 64))
    prediction = torch.full_like(images, 0.1)
    error = (pretext.corrupt(images, draw) + prediction - images).numpy().astype(np.float64)
    np.testing.assert_allclose(pretext.loss(prediction, images, draw).numpy(), (error**2).mean((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Downsample(factor=1), "factor must be 2 or more"),
        (lambda: Downsample(factor=[]), "factor must be 2 or more"),
        (lambda: Downsample(factor=50).check((3, 48, 64)), "factor 50 exceeds the image's 48 pixels"),
        (lambda: Blur(sigma=0), "sigma must be above 0"),
        (lambda: Blur(sigma=20.0).check((3, 48, 64)), "too large for an image of 48 x 64"),
    ],
)
def test_invalid_options_are_refused(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_back_projection_agrees_with_the_small_image_and_beats_bicubic(factor: int, photographs: Tensor) -> None:
    bicubic, corrected = (reduce_and_enlarge(photographs, factor, mode) for mode in ("bicubic", "back_projection"))
    small, reduced = (torch.nn.functional.avg_pool2d(images, factor) for images in (photographs, corrected))
    unclipped = torch.nn.functional.avg_pool2d(((corrected > 0) & (corrected < 1)).float(), factor) == 1
    torch.testing.assert_close(reduced[unclipped], small[unclipped], atol=1e-5, rtol=0)
    error, before = ((images - photographs).square().mean() for images in (corrected, bicubic))
    assert error < 0.98 * before


@pytest.mark.parametrize(("size", "factor"), [((48, 64), 4), ((61, 47), 4), ((100, 131), 3)])
def test_back_projection_is_two_corrections(size: tuple[int, int], factor: int) -> None:
    images = 0.4 + 0.2 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    pool, enlarge = torch.nn.functional.adaptive_avg_pool2d, torch.nn.functional.interpolate
    shape = [-(-side // factor) for side in size]
    small = pool(images, shape)
    large = enlarge(small, size=size, mode="bicubic")
    large = large + enlarge(small - pool(large, shape), size=size, mode="bicubic")
    large = large + enlarge(small - pool(large, shape), size=size, mode="nearest-exact")
    torch.testing.assert_close(reduce_and_enlarge(images, factor, "back_projection"), large, atol=1e-5, rtol=0)


def test_the_network_sees_the_corrected_image_and_the_reference_is_bicubic(images: Tensor) -> None:
    draw = {"factor": torch.full((6,), 4)}
    seen = {name: Downsample(enlarged=name).corrupt(images, draw) for name in ("back_projection", "bicubic")}
    rules = Downsample().rules(images, draw)
    assert torch.equal(Downsample().corrupt(images, draw), seen["back_projection"])
    for name, damaged in seen.items():
        assert torch.equal(rules[name], damaged)
        assert torch.equal(Downsample(enlarged=name).reference(images, draw), seen["bicubic"])
    assert not torch.equal(*seen.values())
