"""The last stage of many architectures, and the split of a model's parameters."""

from __future__ import annotations

import pytest
import timm
from small_model import Model
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.balancing.shared import last_stage, other_parameters, shared_parameters

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


def test_all_last_and_the_others_part_the_model() -> None:
    backbone = Backbone("resnet10t", image_size=(32, 32))
    whole, last = shared_parameters(backbone, "all"), shared_parameters(backbone, "last")
    assert len(whole) == len(list(backbone.parameters())) and 0 < len(last) < len(whole)
    assert {id(p) for p in last} == {id(p) for p in backbone.model.layer4.parameters()}
    backbone.model.layer4[0].conv1.weight.requires_grad_(False)
    assert len(shared_parameters(backbone, "last")) == len(last) - 1
    model = Model()
    others = other_parameters(model, shared_parameters(model.trunk, "all"))
    assert {id(p) for p in others} == {id(p) for p in model.heads.parameters()}


def test_another_share_is_an_error() -> None:
    with pytest.raises(UserError, match=r"unknown value of balance\.shared 'lst'\. Did you mean 'last'"):
        shared_parameters(Model(), "lst")
