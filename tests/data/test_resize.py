"""Resizing does not alias or shift, and follows `fit`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.resize import resize, resize_mask, restore_mask, to_channels

SIDES = st.integers(1, 90)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3]), st.sampled_from(["stretch", "crop", "pad"]))
def test_any_size_becomes_the_target_size(h: int, w: int, height: int, width: int, channels: int, fit: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (h, w, channels), dtype=np.uint8)
    before = image.copy()
    found = resize(image, (height, width), fit)
    assert found.shape == (height, width, channels) and found.dtype == np.uint8
    assert np.array_equal(image, before)


@settings(max_examples=50, deadline=None)
@given(SIDES, SIDES, st.sampled_from(["stretch", "crop", "pad"]))
def test_a_constant_stays_constant(h: int, w: int, fit: str) -> None:
    found = resize(np.full((h, w, 3), 77, np.uint8), (32, 48), fit)
    assert (found == 77).all()


def test_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    for fit in ("stretch", "crop", "pad"):
        assert np.array_equal(resize(image, (32, 48), fit), image)


def test_whole_factors_are_area_means() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    expected = image.reshape(8, 4, 12, 4, 3).mean((1, 3))
    assert np.abs(resize(image, (8, 12)).astype(float) - expected).max() <= 0.51


def test_fine_stripes_become_grey_not_moire() -> None:
    stripes = np.zeros((200, 200, 1), np.uint8)
    stripes[:, ::2] = 255
    found = resize(stripes, (64, 64))
    assert np.abs(found.astype(int) - 127).max() < 45  # aliasing would give 0 and 255


def test_a_panorama_shrinks_one_side_and_grows_the_other() -> None:
    found = resize(np.full((10, 20_000, 1), 9, np.uint8), (64, 64))
    assert found.shape == (64, 64, 1) and (found == 9).all()


def test_crop_keeps_the_centre_and_pad_the_whole_image() -> None:
    image = np.zeros((20, 60, 1), np.uint8)
    image[:, 20:40] = 200
    assert (resize(image, (20, 20), "crop") == 200).all()
    padded = resize(image, (60, 60), "pad")
    assert padded[:20].max() == padded[:20].min() == round(200 / 3)
    assert np.array_equal(padded[20:40], image)


def test_channels() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert np.array_equal(to_channels(grey, 3), np.repeat(grey, 3, axis=2))
    colour = np.zeros((1, 1, 3), np.uint8) + np.array([100, 50, 200], np.uint8)
    assert to_channels(colour, 1).item() == round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)
    with pytest.raises(UserError, match="in_chans is 4"):
        to_channels(colour, 4)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (16, 16)])
def test_a_mask_is_restored_to_its_image(fit: str, shape: tuple[int, int]) -> None:
    """Halves of an image stay halves, except for the part that was cut away."""
    mask = np.zeros(shape, np.uint8)
    mask[:, shape[1] // 2 :] = 1
    back = restore_mask(resize_mask(mask, (20, 20), fit, 9), shape, fit, 9)
    assert back.shape == shape
    seen = back != 9
    assert (back[seen] == mask[seen]).mean() > 0.94
    lost = 1 - 20 * 20 / (20 * 30) if fit == "crop" and shape != (16, 16) else 0
    assert 1 - seen.mean() == pytest.approx(lost, abs=0.02)
