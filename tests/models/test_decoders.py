"""Every registered decoder, and the heads, held to what `models/decoder.py` promises."""

import math

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.models.decoder import DECODERS, LogitHead, MapSpec, PixelHead, natural_stride, sine_positions
from vision_mtl.models.decoders.stages import Stages

SPEC = MapSpec(channels=[8, 16, 24], sizes=[(13, 16), (7, 8), (4, 4)], image_size=(50, 64))  # 50 is no multiple of 4


def random_maps(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, c, *s, requires_grad=True) for c, s in zip(SPEC.channels, SPEC.sizes, strict=True)]


@pytest.mark.parametrize("name", DECODERS.names())
def test_readouts_cover_the_image_and_pass_gradient_to_the_last_map(name: str) -> None:
    torch.manual_seed(0)
    decoder, maps = DECODERS.get(name)().build(SPEC), random_maps()
    found = decoder(maps)
    for readout, (width, stride) in zip(found, decoder.readouts, strict=True):
        assert readout.shape == (2, width, math.ceil(50 / stride), math.ceil(64 / stride))
        assert PixelHead(width, 3, stride, (50, 64))(readout).shape == (2, 3, 50, 64)
    sum(r.square().sum() for r in found).backward()
    assert maps[-1].grad.abs().sum() > 0


@pytest.mark.parametrize(
    "name", [name for name in DECODERS.names() if DECODERS.get(name)().build(SPEC).reads_last_only]
)
def test_a_decoder_of_the_last_map_needs_no_other(name: str) -> None:
    decoder, maps = DECODERS.get(name)().build(SPEC).eval(), random_maps()
    for alone, among in zip(decoder(maps[-1:]), decoder(maps), strict=True):
        assert torch.equal(alone, among)


def test_a_width_that_heads_cannot_share_is_named() -> None:
    with pytest.raises(UserError, match=r"width must be a multiple of 4 and of decoder\.num_heads, 6; found 128"):
        DECODERS.get("transformer")(width=128).build(SPEC)


@pytest.mark.parametrize("name", DECODERS.names())
def test_images_of_a_batch_do_not_mix(name: str) -> None:
    torch.manual_seed(0)
    decoder, maps = DECODERS.get(name)().build(SPEC).eval(), random_maps(3)
    whole = decoder(maps)
    for row in range(3):
        alone = decoder([m[row : row + 1] for m in maps])
        for a, b in zip(whole, alone, strict=True):
            torch.testing.assert_close(a[row : row + 1], b, atol=1e-5, rtol=1e-4)


def test_dropping_leaves_the_last_map_alone_and_follows_chance() -> None:
    decoder, maps = Stages(shallow="drop", drop_ratio=0.5).build(SPEC), random_maps(2)
    found = decoder(maps, drop_draw=torch.tensor([0.49, 0.5]))[0]
    found.square().sum().backward()
    for m in maps[:-1]:
        assert not m.grad[0].any() and m.grad[1].any()
    assert maps[-1].grad.flatten(1).any(1).all()
    kept = decoder(maps)[0]
    torch.testing.assert_close(found[1], kept[1])
    assert not torch.allclose(found[0], kept[0])


def test_stop_gradient_pictures_train_nothing_but_the_decoder() -> None:
    decoder, maps = Stages(shallow="stop_gradient").build(SPEC), random_maps()
    pictures, features = decoder(maps)
    assert not any(m.grad is not None for m in maps)
    pictures.sum().backward()
    assert all(m.grad is None for m in maps) and decoder.project[0].weight.grad is not None
    features.sum().backward()
    assert maps[0].grad is None and maps[-1].grad is not None


def test_transformer_ignores_what_stands_at_hidden_positions() -> None:
    decoder, maps = DECODERS.get("transformer")().build(SPEC), random_maps()
    hidden = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    hidden[:, :, 1, 2] = True
    other = maps[-1].detach().clone()
    other[:, :, 1, 2] = 7.0
    assert torch.equal(decoder(maps, hidden)[0], decoder([*maps[:-1], other], hidden)[0])


def test_pixel_head_against_a_loop() -> None:
    torch.manual_seed(0)
    head = PixelHead(5, 2, 3, (7, 8))
    features = torch.randn(1, 5, 3, 3)
    weight, bias = head.project.weight.detach().numpy()[..., 0, 0], head.project.bias.detach().numpy()
    expected = np.zeros((2, 9, 9))
    for k in range(2):
        for y in range(9):
            for x in range(9):
                output = k * 9 + (y % 3) * 3 + x % 3
                expected[k, y, x] = weight[output] @ features[0, :, y // 3, x // 3].numpy() + bias[output]
    np.testing.assert_allclose(head(features)[0].detach().numpy(), expected[:, :7, :8], atol=1e-6)


def test_heads_start_near_the_chance_answer() -> None:
    assert PixelHead(64, 3, 4, (16, 16))(torch.randn(2, 64, 4, 4)).abs().max() < 0.1
    assert LogitHead(512, 4)(100 * torch.randn(2, 512, 2, 2)).abs().max() < 0.2


def test_natural_stride_rounds_up() -> None:
    assert natural_stride((13, 16), (50, 64)) == 4
    assert natural_stride((3, 3), (64, 64)) == 22


def test_positions_tell_every_cell_apart() -> None:
    table = sine_positions(5, 7, 32)[0]
    distance = torch.cdist(table, table) + 10 * torch.eye(35)
    assert table.shape == (35, 32) and distance.min() > 0.1
