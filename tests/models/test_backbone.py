"""The timm adapter against timm itself, and its errors."""

import pytest
import timm
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone, allowed_size, choose_maps, is_convolutional

FAMILIES = ["resnet18", "vit_tiny_patch16_224", "convnextv2_atto", "swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_equal_those_of_timm_on_normalised_images(name: str) -> None:
    torch.manual_seed(0)
    ours = Backbone(name, image_size=(64, 64)).eval()
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(ours.model.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        maps = ours(images)
        theirs = ours.model.forward_intermediates(
            (images - mean) / std, output_fmt="NCHW", intermediates_only=True, norm=True
        )
    assert [tuple(m.shape[1:]) for m in maps] == [(c, *s) for c, s in zip(ours.channels, ours.map_sizes, strict=True)]
    for index, found in zip(ours.indices, maps, strict=True):
        torch.testing.assert_close(found, theirs[index])
    torch.testing.assert_close(ours.embed(images), maps[-1].mean((2, 3)))


def test_choose_maps_takes_the_last_of_each_resolution_or_even_steps() -> None:
    assert choose_maps([(32, 32), (16, 16), (16, 16), (8, 8), (4, 4), (2, 2), (2, 2)]) == [2, 3, 4, 6]
    assert choose_maps([(4, 4)] * 12) == [2, 5, 8, 11]
    assert choose_maps([(4, 4)] * 6) == [1, 2, 4, 5]
    assert choose_maps([(7, 7)]) == [0]


@pytest.mark.parametrize(("in_chans", "size"), [(1, (64, 64)), (5, (48, 80))])
def test_other_channels_and_shapes(in_chans: int, size: tuple[int, int]) -> None:
    backbone = Backbone("resnet18", in_chans=in_chans, image_size=size)
    assert [m.shape[-2:] for m in backbone(torch.rand(2, in_chans, *size))] == [tuple(s) for s in backbone.map_sizes]
    published = timm.get_pretrained_cfg("resnet18").mean
    assert backbone.mean.flatten().tolist() == pytest.approx([sum(published) / 3] * in_chans)


def test_kwargs_reach_timm() -> None:
    assert Backbone("resnet18", kwargs={"output_stride": 8}, image_size=(64, 64)).map_sizes[-1] == (8, 8)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'resnet_18'\. Did you mean 'resnet18'"):
        Backbone("resnet_18", image_size=(64, 64))


def test_an_unknown_keyword_is_named() -> None:
    with pytest.raises(UserError, match="output_strid"):
        Backbone("resnet18", kwargs={"output_strid": 8}, image_size=(64, 64))


@pytest.mark.slow
def test_a_refused_size_names_one_that_works() -> None:
    # inception_v4's valid convolutions leave nothing of 64 pixels
    with pytest.raises(UserError, match=r"inception_v4.*image_size 64,64.*Nearest size that works: --image_size \d+"):
        Backbone("inception_v4", image_size=(64, 64))


def test_allowed_size_is_allowed() -> None:
    size = allowed_size("resnet18", (70, 70))
    assert size is not None
    Backbone("resnet18", image_size=size)
    assert max(abs(side - 70) for side in size) <= 6


def test_convolutional_by_where_the_parameters_are() -> None:
    assert is_convolutional(timm.create_model("resnet18"))
    assert not is_convolutional(timm.create_model("vit_tiny_patch16_224"))
