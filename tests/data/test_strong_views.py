"""Strong views: they depend on the image alone, fit every kind of image, and never mirror."""

from __future__ import annotations

import numpy as np
import pytest

from vision_mtl.data.augment import Augmenter


def picture(channels: int, dtype: type) -> np.ndarray:
    top = 255 if dtype is np.uint8 else 65535
    return (np.random.default_rng(0).random((24, 32, channels)) * top).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("policy", ["none", "mirror"])
def test_a_view_depends_on_the_image_and_epoch_alone(policy: str, channels: int, dtype: type) -> None:
    image = picture(channels, dtype)
    before, shape = image.copy(), image.shape
    first, again = (Augmenter("t", policy, shape, dtype, strong=True) for _ in range(2))
    alone = [first.apply(image, [], 7, 0, index)[0] for index in range(40)]
    other_order = [again.apply(image, [], 7, 0, index)[0] for index in reversed(range(40))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(alone, other_order, strict=True))
    assert np.array_equal(image, before) and len({view.tobytes() for view in alone}) == 40
    assert all(view.shape == shape and view.dtype == dtype for view in alone)
    weak = Augmenter("t", policy, shape, dtype).apply(image, [], 7, 0, 0)[0]
    assert not np.array_equal(weak, alone[0]) and not np.array_equal(first.apply(image, [], 7, 1, 0)[0], alone[0])


@pytest.mark.parametrize(("policy", "flips"), [("none", False), ("light", False), ("mirror", True)])
def test_only_a_policy_that_mirrors_mirrors(policy: str, flips: bool) -> None:
    """A triangle with its right angle at the lower left: of each view, does it or its mirror image fit better?"""
    image = np.repeat(np.tril(np.full((32, 32), 220, np.uint8))[..., None], 3, axis=2)
    augmenter = Augmenter("t", policy, image.shape, strong=True)
    plain, mirrored = (side.astype(np.float64).ravel() for side in (image, image[:, ::-1]))
    seen = 0
    for index in range(120):
        view = augmenter.apply(image, [], 0, 0, index)[0].astype(np.float64).ravel()
        if view.std() > 0:
            seen += abs(np.corrcoef(view, mirrored)[0, 1]) > abs(np.corrcoef(view, plain)[0, 1]) + 0.2
    assert (seen > 20) if flips else (seen <= 6)
