"""Every pretext works on images of two and five bands, or is refused by name."""

import numpy as np
import pytest
import torch
from random_targets import with_random_targets

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.viz.bands import shown_bands


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("name", PRETEXTS.names())
def test_bands(name: str, channels: int) -> None:
    images = torch.rand(3, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    pretext, shape = with_random_targets(PRETEXTS.get(name)()), image_shape(images)
    try:
        pretext.check(shape)
    except UserError as error:
        assert name in str(error) and f"{channels} channels" in str(error)
        return
    keys = Keys(0, 0, torch.arange(3))
    draw = pretext.sample(keys, shape)
    assert pretext.usable(images).all()
    damaged = pretext.corrupt(images, draw)
    assert damaged.shape[1] == channels and pretext.picture(images, draw).shape[1] == channels
    count = pretext.num_outputs(channels)
    prediction = torch.zeros(3, count, *(images.shape[2:] if pretext.repairs else ()))
    assert torch.isfinite(pretext.loss(prediction, images, draw)).all()
    if pretext.repairs:
        assert pretext.repair(prediction, damaged, draw).shape == images.shape
        assert pretext.reference(images, draw).shape == images.shape


def test_the_pretexts_that_need_no_colours_work() -> None:
    for name in ("grid_mask", "downsample", "blur", "contrast", "rotation", "neighbour"):
        PRETEXTS.get(name)().check((5, 32, 32))


def test_the_bands_that_are_shown() -> None:
    image = np.arange(2 * 5).reshape(1, 2, 5)
    assert shown_bands(image)[0, 0].tolist() == [0, 1, 2] and shown_bands(image, [4, 2, 0])[0, 1].tolist() == [9, 7, 5]
    assert shown_bands(image[..., :2]).shape == (1, 2, 1) and shown_bands(image[..., :3]).shape == (1, 2, 3)
    assert shown_bands(image[..., :1]).shape == (1, 2, 1)
