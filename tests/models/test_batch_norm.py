"""Synchronised BatchNorm: the same values as the replaced layers, and a copy for a single process."""

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from vision_mtl.models.backbone import Backbone
from vision_mtl.models.batch_norm import LocalNorm, copy_for_one, synchronise


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))


def test_parameters_and_names_stay_and_a_copy_trains_as_before() -> None:
    model, images = network(), torch.randn(6, 3, 12, 12)
    before = dict(model.named_parameters())
    expected = network().train()
    synchronise(model)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in model.modules()) == 2
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    alone = copy_for_one(model).train()
    assert sum(isinstance(m, LocalNorm) for m in alone.modules()) == 2
    torch.testing.assert_close(alone(images), expected(images))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name])
    assert not torch.equal(alone[1].running_mean, model[1].running_mean)  # the statistics of the original are unchanged


def test_every_norm_of_a_timm_network_is_replaced() -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
    count = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    synchronise(backbone)
    assert count == sum(isinstance(m, nn.SyncBatchNorm) for m in backbone.modules()) > 4
