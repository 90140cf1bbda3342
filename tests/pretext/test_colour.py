"""Grey, Lab and colour bins against scikit-image, OpenCV and the paper's counts."""

import kornia
import numpy as np
import pytest
import torch
from skimage import color
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext import colour
from vision_mtl.pretext.decolorise import Decolorise

KEYS = Keys(0, 0, torch.arange(6))


def hwc(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy().astype(np.float64)


def test_luma_is_rec_601(images: Tensor) -> None:
    import cv2

    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in hwc(images).astype(np.float32)])
    np.testing.assert_allclose(colour.luma(images)[:, 0].numpy(), expected, atol=1e-6)


def test_lab_agrees_with_scikit_image(images: Tensor) -> None:
    lab = color.rgb2lab(hwc(images))
    np.testing.assert_allclose(colour.lightness(images)[:, 0].numpy(), lab[..., 0], atol=0.02)
    np.testing.assert_allclose(hwc(colour.chroma_ab(images)) * 110, lab[..., 1:], atol=0.05)


def test_chroma_equals_kornia(images: Tensor) -> None:
    steps = torch.linspace(0, 1, 40)
    cube = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 40, -1)  # includes the linear parts of both curves
    for rgb in (images, cube, images.double()):
        expected = kornia.color.rgb_to_lab(rgb)[:, 1:] / 110
        torch.testing.assert_close(colour.chroma_ab(rgb), expected, atol=1e-5, rtol=0)


def test_lab_round_trip(images: Tensor) -> None:
    back = colour.with_chroma(colour.lightness(images), colour.chroma_ab(images))
    torch.testing.assert_close(back, images, atol=2e-3, rtol=0)


def test_colours_of_lab_equal_kornia(images: Tensor) -> None:
    axes = torch.linspace(0, 100, 12), torch.linspace(-1.2, 1.2, 25), torch.linspace(-1.2, 1.2, 25)
    light, ab = torch.cartesian_prod(*axes).T.reshape(1, 3, 12, -1).split([1, 2], dim=1)  # far beyond sRGB too
    for one, two in ((light, ab), (colour.lightness(images), colour.chroma_ab(images))):
        expected = kornia.color.lab_to_rgb(torch.cat((one, two * 110), 1))
        torch.testing.assert_close(colour.with_chroma(one, two), expected, atol=2e-5, rtol=0)
        two = two.clone().requires_grad_()
        colour.with_chroma(one, two).sum().backward()
        assert two.grad is not None and bool(two.grad.any())


def test_bins_cover_the_gamut() -> None:
    centres = colour.bin_centres()
    assert len(centres) == 261  # a head of `decolorise.answer=classify` has as many outputs
    torch.testing.assert_close(centres.mean(0), torch.tensor([15.6, 6.0]), atol=0.05, rtol=0)  # its chance answer
    assert len(centres.unique(dim=0)) == len(centres) and bool((centres.abs() <= 110).all())


def test_nearest_bin_is_within_half_a_bin(images: Tensor) -> None:
    ab = hwc(colour.chroma_ab(images)).reshape(-1, 2) * 110
    chosen = colour.bin_centres()[colour.nearest_bin(images).flatten()].numpy()
    distance = np.abs(chosen - ab).max(1)
    assert np.quantile(distance, 0.99) <= 5.01 and distance.max() <= 10  # half a bin, more only at the gamut's edge


def test_rare_colours_have_larger_weights_and_the_mean_weight_is_one() -> None:
    weights, centres = colour.bin_weights(), colour.bin_centres()
    prior = torch.softmax(-centres.norm(dim=1) / colour.PRIOR_CHROMA, dim=0)
    assert (weights * prior).sum().item() == pytest.approx(1, abs=1e-5)
    assert weights[centres.norm(dim=1).argmax()] > 2 * weights[centres.norm(dim=1).argmin()]


def test_a_certain_prediction_decodes_to_its_bin() -> None:
    number = torch.tensor([[[7]]])
    logits = torch.nn.functional.one_hot(number, len(colour.bin_centres())).permute(0, 3, 1, 2) * 50.0
    decoded = colour.annealed_mean(logits)[0, :, 0, 0] * 110
    torch.testing.assert_close(decoded, colour.bin_centres()[7], atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["luma", "lab"])
def test_the_input_is_grey_of_that_kind(images: Tensor, kind: str) -> None:
    seen = Decolorise(input=kind).corrupt(images, {})
    assert (seen.amax(1) - seen.amin(1)).max() < 1e-3
    measure = colour.luma if kind == "luma" else colour.lightness
    torch.testing.assert_close(measure(seen), measure(images), atol=0.05 if kind == "lab" else 1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["luma", "lab"])
def test_a_repair_keeps_the_input_luma_or_lightness(images: Tensor, kind: str) -> None:
    pretext = Decolorise(input=kind)
    wrong = pretext.target(images, {}) * 0.3  # duller colours: inside the gamut
    repaired = pretext.repair(wrong, pretext.corrupt(images, {}), {})
    measure = colour.luma if kind == "luma" else colour.lightness
    tolerance = 0.004 if kind == "luma" else 1.0
    assert (measure(repaired) - measure(images)).abs().mean() < tolerance


def test_a_zero_prediction_is_the_grey_image(images: Tensor) -> None:
    pretext = Decolorise()
    grey = pretext.corrupt(images, {})
    torch.testing.assert_close(pretext.repair(torch.zeros(6, 2, 48, 64), grey, {}), grey, atol=2e-3, rtol=0)


def test_huber_by_hand(images: Tensor) -> None:
    pretext = Decolorise(delta=0.05)
    error = (pretext.target(images, {})).abs()  # of a zero prediction
    expected = torch.where(error < 0.05, 0.5 * error.square(), 0.05 * (error - 0.025)).mean((1, 2, 3))
    torch.testing.assert_close(pretext.loss(torch.zeros(6, 2, 48, 64), images, {}), expected)


def test_classes_by_hand(images: Tensor) -> None:
    pretext = Decolorise(answer="classify")
    logits = torch.randn(6, pretext.num_outputs(3), 48, 64, generator=torch.Generator().manual_seed(0))
    target = pretext.target(images, {})
    losses = -torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0] * colour.bin_weights()[target]
    torch.testing.assert_close(pretext.loss(logits, images, {}), losses.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_noisy_grey_images_are_not_usable(images: Tensor) -> None:
    grey = colour.luma(images).expand_as(images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 0.002
    pretext = Decolorise()
    assert pretext.usable(images).all() and not pretext.usable((grey + noise).clamp(0, 1)).any()
    prediction = torch.ones(6, 2, 48, 64, requires_grad=True)
    loss = pretext.loss(prediction, grey, {})
    loss.sum().backward()
    assert not loss.any() and not prediction.grad.any()


def test_invalid_options_are_refused() -> None:
    with pytest.raises(UserError, match="needs RGB images; these have 1 channels"):
        Decolorise().check((1, 32, 32))
    with pytest.raises(UserError, match=r"delta must be above 0; found 0"):
        Decolorise(delta=0)
