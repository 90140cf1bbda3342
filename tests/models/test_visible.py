"""Visible tokens alone against all tokens with the hidden ones masked out of attention."""

import pytest
import timm
import torch

from vision_mtl.models.backbone import Backbone
from vision_mtl.models.visible import encode_visible, hidden_tokens, takes_visible_tokens


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", image_size=(64, 64)).eval()


def random_hidden(counts: list[int]) -> torch.Tensor:
    """(B, 1, 4, 4) with `counts[i]` hidden tokens in image i."""
    hidden = torch.zeros(len(counts), 16, dtype=torch.bool)
    for row, count in enumerate(counts):
        hidden[row, torch.randperm(16)[:count]] = True
    return hidden.view(-1, 1, 4, 4)


@pytest.mark.parametrize("counts", [[4, 4, 4], [0, 1, 12, 1]])
def test_equal_to_masked_attention(vit: Backbone, counts: list[int]) -> None:
    torch.manual_seed(1)
    hidden = random_hidden(counts)
    images = torch.rand(len(counts), 3, 64, 64)
    prefix = torch.zeros(len(counts), 1, dtype=torch.bool)
    keys = torch.cat((prefix, hidden.flatten(1)), dim=1)[:, None, None, :]  # (B, 1, 1, 1 + N)
    attention = torch.zeros(keys.shape).masked_fill(keys, float("-inf")).expand(-1, -1, 17, -1)
    with torch.no_grad():
        ours = vit(images, hidden)
        full = vit.model.forward_intermediates(
            vit.normalise(images), indices=vit.indices, norm=True, intermediates_only=True, attn_mask=attention
        )
    for mine, theirs in zip(ours, full, strict=True):
        shown = ~hidden.expand_as(mine)
        torch.testing.assert_close(mine[shown], theirs[shown], atol=1e-5, rtol=1e-5)
        assert not mine[~shown].any()


def test_hidden_pixels_change_nothing(vit: Backbone) -> None:
    hidden = random_hidden([3, 5])
    images = torch.rand(2, 3, 64, 64)
    pixels = hidden.repeat_interleave(16, 2).repeat_interleave(16, 3)
    other = torch.where(pixels, torch.full_like(images, float("nan")), images)
    with torch.no_grad():
        for a, b in zip(vit(images, hidden), vit(other, hidden), strict=True):
            assert torch.equal(a, b)


def test_a_number_of_tokens_that_only_others_have_changes_nothing(vit: Backbone) -> None:
    torch.manual_seed(1)
    hidden, images = random_hidden([0, 3, 3]), torch.rand(3, 3, 64, 64)
    images = torch.where(hidden.repeat_interleave(16, 2).repeat_interleave(16, 3), torch.nan, images)
    asked, results, passes = [], [], []
    hook = vit.model.blocks[0].register_forward_hook(lambda module, inputs, output: passes.append(len(output)))

    def common(counts: list[int], most: int) -> list[int]:
        asked.append((counts, most))
        return [7, *counts]

    for everywhere in (None, common):
        vit.common_counts = everywhere
        maps = vit(images, hidden)
        gradient = torch.autograd.grad(maps[-1].sum(), vit.model.blocks[0].mlp.fc1.weight)[0]
        results.append([*(m.detach() for m in maps), gradient])
    vit.common_counts = None
    hook.remove()
    assert asked == [([13, 16], 16)] and passes == [2, 1, 1, 2, 1]
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)


RUNS = [
    [(slice(0, 3), 12)],
    [(slice(0, 2), 12), (slice(2, 5), 16), (slice(5, 6), 12)],
    [(slice(0, 1), 16), (slice(1, 4), 3), (slice(4, 5), 1)],
]


@pytest.mark.parametrize("runs", RUNS)
def test_known_numbers_of_tokens_change_nothing(vit: Backbone, runs: list[tuple[slice, int]]) -> None:
    torch.manual_seed(1)
    hidden = random_hidden([16 - count for rows, count in runs for _ in range(rows.start, rows.stop)])
    images = torch.rand(len(hidden), 3, 64, 64)
    results = []
    for known in (None, runs):
        maps = vit(images, hidden, runs=known)
        gradient = torch.autograd.grad(maps[-1].square().sum(), vit.model.blocks[0].mlp.fc1.weight)[0]
        results.append([*(m.detach() for m in maps), gradient])
    for counted, told in zip(*results, strict=True):
        torch.testing.assert_close(told, counted, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_with_known_numbers_of_tokens_the_graph_is_whole(vit: Backbone) -> None:
    """Every count that is asked of the device breaks a compiled graph in two."""
    hidden, images = random_hidden([12, 12, 0, 0]), torch.rand(4, 3, 64, 64)
    runs = [(slice(0, 2), 4), (slice(2, 4), 16)]
    breaks = [torch._dynamo.explain(vit)(images, hidden, runs=known).graph_break_count for known in (runs, None)]
    assert breaks[0] == 0 < breaks[1]


def test_a_token_is_hidden_only_if_all_of_it_is() -> None:
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4, :4] = True  # token 0 wholly
    mask[..., 4:, 4:7] = True  # token 3 all but a column
    assert hidden_tokens(mask, (2, 2)).flatten().tolist() == [True, False, False, False]


def test_gradients_reach_the_patch_embedding(vit: Backbone) -> None:
    maps = encode_visible(vit.model, torch.rand(2, 3, 64, 64), random_hidden([4, 8]), vit.indices)
    maps[-1].sum().backward()
    assert vit.model.patch_embed.proj.weight.grad.abs().sum() > 0
    vit.zero_grad()


PLAIN = {
    "vit_tiny_patch16_224": True,
    "deit_tiny_patch16_224": True,
    "deit_tiny_distilled_patch16_224": False,
    "resnet18": False,
}


@pytest.mark.parametrize(("name", "plain"), PLAIN.items())
def test_which_architectures_skip(name: str, plain: bool) -> None:
    assert takes_visible_tokens(timm.create_model(name, num_classes=0)) is plain
