"""Explicit attention equals the fused kernel; the choice between them."""

import pytest
import torch

from vision_mtl.models.attention import MOST_POSITIONS, choose_attention
from vision_mtl.models.backbone import Backbone


def layers_fused(model: torch.nn.Module) -> set[bool]:
    return {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}


@pytest.mark.parametrize(
    ("device", "positions", "fused"),
    [("cpu", 64, False), ("cpu", MOST_POSITIONS, False), ("cpu", MOST_POSITIONS + 1, True), ("cuda", 64, True)],
)
def test_explicit_products_for_few_tokens_on_a_cpu(device: str, positions: int, fused: bool) -> None:
    backbone = Backbone("vit_tiny_patch16_224", image_size=(32, 32))
    choose_attention(backbone, torch.device(device), positions)
    assert layers_fused(backbone) == {fused}


def test_both_implementations_agree() -> None:
    torch.manual_seed(0)
    backbone = Backbone("vit_tiny_patch16_224", image_size=(64, 64))
    images, results = torch.rand(2, 3, 64, 64), []
    for positions in (16, MOST_POSITIONS + 1):
        choose_attention(backbone, torch.device("cpu"), positions)
        backbone.zero_grad()
        last = backbone(images)[-1]
        last.square().mean().backward()
        results.append((last.detach(), backbone.model.patch_embed.proj.weight.grad.clone()))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_last_only_returns_the_same_last_map() -> None:
    backbone = Backbone("resnet18", image_size=(64, 64)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (alone,) = backbone(images, last_only=True)
        assert torch.equal(alone, backbone(images)[-1])
