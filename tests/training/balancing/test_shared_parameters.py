"""The division of a model's parameters into shared and other ones."""

from __future__ import annotations

import pytest
from small_model import Model

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.balancing.shared import other_parameters, shared_parameters


def test_shared_and_other_parameters_partition_the_model() -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
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
