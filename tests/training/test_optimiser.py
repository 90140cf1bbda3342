"""The schedule by hand, the parameter groups by name, and the errors."""

import math

import pytest
import timm
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.training.optimiser import build_optimiser, parameter_groups
from vision_mtl.training.options import Optim


def test_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    optim = Optim(steps=100, max_seconds=None, batch_size=64, learning_rate=1e-3, warmup_ratio=0.2)
    peak = 1e-3 * 64 / 256
    expected = {0.0: 0.0, 0.1: peak / 2, 0.2: peak, 0.6: peak / 2, 1.0: 0.0}
    for share, rate in expected.items():
        assert optim.rate(share) == pytest.approx(rate, abs=1e-12)
    assert optim.rate(0.4) == pytest.approx(peak * (1 + math.cos(math.pi / 4)) / 2)


def test_progress_is_towards_the_nearer_end() -> None:
    optim = Optim(steps=100, max_seconds=10.0)
    assert optim.progress(20, 1.0) == pytest.approx(0.2)
    assert optim.progress(20, 5.0) == pytest.approx(0.5)
    assert optim.progress(500, 1.0) == 1.0
    assert Optim(steps=100, max_seconds=None).progress(20, 1e9) == pytest.approx(0.2)


def test_norms_biases_and_tokens_do_not_decay() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3)
    names = {id(p): n for n, p in model.named_parameters()}
    decaying, plain = ([names[id(p)] for p in group["params"]] for group in parameter_groups(model, 0.05))
    assert set(decaying) | set(plain) == set(names.values()) and not set(decaying) & set(plain)
    assert {"cls_token", "blocks.0.norm1.weight", "blocks.0.attn.qkv.bias", "norm.weight"} <= set(plain)
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight", "pos_embed"} <= set(decaying)


def test_our_adamw_step_equals_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(4, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    optimiser = build_optimiser(ours, Optim(weight_decay=0.1))
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    for group in optimiser.param_groups:
        group["lr"] = 0.01
    for step in range(3):
        for layer, opt in ((ours, optimiser), (theirs, reference)):
            opt.zero_grad()
            layer(torch.full((2, 4), step + 1.0)).square().sum().backward()
            opt.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"optim\.steps must be at least 1; found 0"),
        ({"warmup_ratio": 1.0}, r"optim\.warmup_ratio must be in \[0, 1\); found 1\.0"),
        ({"betas": (0.9, 1.0)}, r"optim\.betas"),
        ({"batch_size": 4, "accumulate": 5}, r"optim\.accumulate must be 1 to batch_size; found 5"),
        ({"steps": None, "max_seconds": None}, "needs an end"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Optim(**options)
