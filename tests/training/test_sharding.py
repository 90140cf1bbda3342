"""FSDP units, options that are errors, and names in checkpoints; `test_several_processes.py` tests the steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import LossTerm
from vision_mtl.training.dtensors import clip_gradients, numbers_of, separate
from vision_mtl.training.options import Optim
from vision_mtl.training.sharding import LARGEST_UNIT, check_shard, copy_without_weights, fsdp_units


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("vit_tiny_patch16_224", {}, [f"blocks.{n}" for n in range(12)]),
        # blocks of the last stages are larger than an eighth, so their layers are the units
        ("resnet18", {}, ["layer3.1", "layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]),
    ],
)
def test_the_units_are_blocks_that_are_called(name: str, kwargs: dict, expected: list[str]) -> None:
    backbone = Backbone(name, kwargs=kwargs, image_size=(64, 64)).train()
    backbone.model.eval()
    modes = [module.training for module in backbone.modules()]
    names = {module: path for path, module in backbone.model.named_modules()}
    found = fsdp_units(backbone)
    assert {names[part] for part in found} >= set(expected)
    assert [module.training for module in backbone.modules()] == modes
    held = [id(p) for part in found for p in part.parameters()]
    assert len(held) == len(set(held))
    total = sum(p.numel() for p in backbone.parameters())
    for part in found:
        size = sum(p.numel() for p in part.parameters())
        assert size <= LARGEST_UNIT * total or not list(part.children())
    assert sum(p.numel() for part in found for p in part.parameters()) > 0.9 * total
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_uncalled_and_shared_weights_are_in_no_unit() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.called, self.shared = (nn.Linear(8, 8) for _ in range(3))
            self.again = nn.Sequential(self.shared)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.shared(self.called(nn.functional.linear(x, self.read.weight, self.read.bias))))

    backbone = Backbone("test_resnet", image_size=(32, 32))
    backbone.model = block = Block()
    backbone.forward = lambda images: block(images.new_zeros(1, 8))
    assert fsdp_units(backbone) == [block.called]


@pytest.mark.parametrize(
    ("options", "balance", "conflicts", "compiled", "message"),
    [
        ({"ema_decay": 0.99}, "equal", 0, False, r"runtime\.shard, optim\.ema_decay must be 0.*; found 0\.99\."),
        ({}, "equal", 0, True, r"runtime\.shard, runtime\.compile must be false; found true\."),
        ({}, "UPGrad", 0, False, r"runtime\.shard, balance\.name must be equal, .*; found UPGrad\."),
        ({}, "dwa", 5, False, r"runtime\.shard, balance\.conflicts_every_steps must be 0.*; found 5\."),
    ],
)
def test_options_that_need_full_gradients_or_weights_are_errors(
    options: dict, balance: str, conflicts: int, compiled: bool, message: str
) -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    shared, rest = (list(layer.parameters()) for layer in layers)
    terms = [LossTerm(name="a"), LossTerm(name="b")]
    balancing = make_balancing(balance, terms, shared, rest, {}, conflicts)
    with pytest.raises(UserError, match=message):
        check_shard(Optim(**options), balancing, compiled)


def test_other_options_are_accepted() -> None:
    check_shard(Optim(), None, compiled=False)
    for name in ("equal", "uncertainty"):
        terms = [LossTerm(name="a"), LossTerm(name="b")]
        check_shard(Optim(), make_balancing(name, terms, [], [], {}), compiled=False)


def test_a_copy_without_weights_has_buffers_and_ties() -> None:
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(3), "one": nn.Linear(4, 4)})
    model["two"] = model["one"]
    model["one"].bias.requires_grad_(False)
    model["norm"].running_mean.fill_(5)
    copy = copy_without_weights(model)
    assert all(p.numel() == 0 for p in copy.parameters()) and all(p.numel() for p in model.parameters())
    assert copy["one"].weight is copy["two"].weight and not copy["one"].bias.requires_grad
    assert torch.equal(copy["norm"].running_mean, torch.full((3,), 5.0))
    assert copy["norm"].running_mean is not model["norm"].running_mean


class Sharded(nn.Parameter):
    """A parameter with the method by which DTensors are recognised."""

    full_tensor = None


def test_groups_are_separated_and_parameters_keep_their_numbers() -> None:
    a, b, c, d = (kind(torch.zeros(2)) for kind in (nn.Parameter, Sharded, nn.Parameter, Sharded))
    groups = separate([{"params": [a, b, c], "weight_decay": 0.1}, {"params": [d], "lr_scale": 0.5}])
    assert [[*map(id, group["params"])] for group in groups] == [[id(b)], [id(a), id(c)], [id(d)]]
    assert [group["numbers"] for group in groups] == [[1], [0, 2], [3]]
    assert [group.get("weight_decay") for group in groups] == [0.1, 0.1, None] and groups[2]["lr_scale"] == 0.5
    plain = [{**group, "params": [nn.Parameter(p.detach().clone()) for p in group["params"]]} for group in groups]
    assert numbers_of(torch.optim.SGD(plain)) == [1, 0, 2, 3]
    assert numbers_of(torch.optim.SGD([{"params": [a]}, {"params": [c]}])) == [0, 1]


@pytest.mark.parametrize("limit", [1.0, 100.0, float("inf")])
def test_full_gradients_are_clipped_as_torch_does(limit: float) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), ())]
    theirs = [nn.Parameter(torch.zeros_like(p)) for p in ours]
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one) * 3
        other.grad = one.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    torch.testing.assert_close(clip_gradients(ours, limit), expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert float(clip_gradients([], limit)) == 0
