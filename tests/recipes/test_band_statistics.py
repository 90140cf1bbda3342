"""Mean and standard deviation of bands come from training images where no published ones apply."""

import numpy as np
import pytest
import torch

from vision_mtl.api.parts import open_images
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes.band_statistics import SMALLEST_STD, fit_statistics


def test_bands_are_standardised_on_the_given_images() -> None:
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 5), np.uint8)
    values[..., 4] = 51  # a constant band
    pool, backbone = open_images(values, 8, channels=5), Backbone("test_resnet", in_chans=5, image_size=(8, 8))
    fit_statistics(backbone, pool, torch.arange(6))
    chosen = values[:6] / 255
    assert np.allclose(backbone.mean.flatten(), chosen.mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(backbone.std.flatten()[:4], chosen[..., :4].std((0, 1, 2)), atol=1e-5)
    assert backbone.std.flatten()[4] == pytest.approx(SMALLEST_STD)
    fit_statistics(backbone, pool, torch.arange(6, 10))  # fitted once
    assert np.allclose(backbone.mean.flatten(), chosen.mean((0, 1, 2)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_rgb_keep_the_published_statistics(channels: int) -> None:
    values = np.full((4, 8, 8, channels), 9, np.uint8)
    backbone = Backbone("test_resnet", in_chans=channels, image_size=(8, 8))
    before = backbone.mean.clone()
    fit_statistics(backbone, open_images(values, 8, channels=channels), torch.arange(4))
    assert torch.equal(backbone.mean, before)
