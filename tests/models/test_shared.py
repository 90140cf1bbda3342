"""One pass for a mixed batch gives each pretext what a pass of its own would."""

import torch

from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import Answer, Request, SharedModel

ANSWERS = {"mask": Answer("pixels", 3, learned_fill=True), "colour": Answer("pixels", 2), "turn": Answer("logits", 4)}


def build(backbone: str, decoder: str) -> SharedModel:
    torch.manual_seed(0)
    trunk = Backbone(backbone, image_size=(64, 64))
    return SharedModel(trunk, DECODERS.get(decoder)(MapSpec(trunk.channels, trunk.map_sizes, (64, 64))), ANSWERS)


def cell_mask(rows: int) -> torch.Tensor:
    mask = torch.zeros(rows, 1, 64, 64, dtype=torch.bool)
    mask[:, :, 16:32, 32:48] = True
    return mask


def test_parts_of_a_mixed_batch_equal_separate_passes() -> None:
    for backbone, decoder in (("resnet18", "stages"), ("vit_tiny_patch16_224", "transformer")):
        model = build(backbone, decoder).eval()
        images = torch.rand(6, 3, 64, 64)
        parts = [
            Request("mask", slice(0, 2), cell_mask(2)),
            Request("colour", slice(2, 5)),
            Request("turn", slice(5, 6)),
        ]
        with torch.no_grad():
            mixed = model(images, parts)
            for part in parts:
                size = part.rows.stop - part.rows.start
                alone = model(images[part.rows], [Request(part.name, slice(0, size), part.hidden)])
                torch.testing.assert_close(mixed[part.name][0], alone[part.name][0], atol=1e-5, rtol=1e-4)


def test_learned_fill_stands_where_pixels_are_hidden_and_learns() -> None:
    model = build("resnet18", "linear")
    with torch.no_grad():
        model.fills["mask"].copy_(torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    images = torch.rand(3, 3, 64, 64)
    filled = model.fill_hidden(images, [Request("mask", slice(1, 2), cell_mask(1))])
    assert filled[1, :, 20, 40].tolist() == [model.fills["mask"][c].item() for c in range(3)]
    assert torch.equal(filled[[0, 2]], images[[0, 2]]) and torch.equal(filled[1, :, 0], images[1, :, 0])
    model(images, [Request("mask", slice(0, 3), cell_mask(3))])["mask"][0].square().sum().backward()
    assert model.fills["mask"].grad.abs().sum() > 0


def test_a_head_without_rows_gets_no_gradient() -> None:
    model = build("resnet18", "stages")
    model(torch.rand(2, 3, 64, 64), [Request("turn", slice(0, 2))])["turn"][0].sum().backward()
    assert all(p.grad is None for p in model.heads["colour"].parameters())
    assert all(p.grad is not None for p in model.heads["turn"].parameters())
