"""Histograms of oriented gradients: those of scikit-image, of any pool, blind to brightness."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.feature import hog

from vision_mtl.evaluation.hog import hog_features


def features(images: np.ndarray) -> torch.Tensor:
    pool = SimpleNamespace(gather=lambda rows: torch.from_numpy(images[rows.numpy()]))
    return hog_features(pool, torch.arange(len(images)), batch_size=2)


def test_images_of_the_side_are_as_scikit_image_sees_them() -> None:
    images = np.random.default_rng(0).random((3, 3, 64, 64), np.float32)
    wanted = np.stack([hog(image.transpose(1, 2, 0), cells_per_block=(2, 2), channel_axis=-1) for image in images])
    np.testing.assert_allclose(features(images).numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 20, 32), (5, 96, 40)])
def test_any_shape_and_brightness(shape: tuple[int, int, int]) -> None:
    across, down = np.zeros((2, *shape), np.float32)
    across[:, :, ::8], down[:, ::8] = 0.2, 0.2
    same, other, brighter = features(np.stack([across, down, 2 * across]))
    assert same.shape == (1764,) and same.dtype == torch.float32
    torch.testing.assert_close(same, brighter, atol=1e-3, rtol=0)
    assert (same - other).abs().mean() > 0.05
    assert bool(features(np.ones((1, *shape), np.float32)).isfinite().all())
