"""The last stage of many architectures, and what stands still when the rest is frozen."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from vision_mtl.models.backbone import Backbone
from vision_mtl.models.depth import freeze, last_stage

LAST = {
    "resnet18": "layer4",
    "vit_tiny_patch16_224": "blocks.11",
    "convnext_atto": "stages.3",
    "efficientnet_b0": "blocks.6",
    "swin_tiny_patch4_window7_224": "layers.3",
    "mixer_s32_224": "blocks.7",
    "densenet121": "features.denseblock4",
    "vgg11": "features.18",
    "inception_v3": "Mixed_7c",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_the_last_stage_is_the_deepest(name: str) -> None:
    model = timm.create_model(name, num_classes=0)
    assert last_stage(model) is model.get_submodule(LAST[name])


def test_without_timms_word_the_last_child_that_is_no_norm_or_head() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Linear(2, 2), nn.Linear(2, 2)
            self.norm, self.act, self.head = nn.LayerNorm(2), nn.ReLU(), nn.Linear(2, 2)

    model = Plain()
    assert last_stage(model) is model.body
    assert last_stage(nn.Linear(2, 2)).weight.shape == (2, 2)


def test_freezing_leaves_the_exceptions_and_stills_the_norms_before_them() -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
    late = list(last_stage(backbone.model).parameters())
    still = freeze(backbone, late)
    trained = {id(p) for p in backbone.parameters() if p.requires_grad}
    assert trained == {id(p) for p in late}
    norms = {m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms & set(still) == norms - set(backbone.model.layer4.modules())


def test_a_wholly_frozen_backbone_gives_the_same_maps_in_training() -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32)).eval()
    images = torch.rand(4, 3, 32, 32)
    before = backbone(images)
    assert freeze(backbone) == list(backbone.modules()) and not any(p.requires_grad for p in backbone.parameters())
    for one, other in zip(before, backbone(images), strict=True):
        assert torch.equal(one, other)
