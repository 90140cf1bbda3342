"""Chains of damages on one image, and mixtures of pretexts in one batch."""

import itertools

import pytest
import torch
from random_targets import with_random_targets
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.chain import Chain
from vision_mtl.pretext.colour import luma
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.decolorise import Decolorise
from vision_mtl.pretext.downsample import Downsample, reduce_and_enlarge
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.rotation import Rotation
from vision_mtl.pretext.smooth import fill_smoothly

SHAPE = (3, 48, 64)


def keys(count: int, seed: int = 0) -> Keys:
    return Keys(seed, 0, torch.arange(count))


def test_masks_come_first_whatever_the_order(images: Tensor) -> None:
    forwards = Chain(steps={"grid_mask": {}, "downsample": {"factor": 4}})
    backwards = Chain(steps={"downsample": {"factor": 4}, "grid_mask": {}})
    draw = forwards.sample(keys(6), SHAPE)
    assert torch.equal(forwards.corrupt(images, draw), backwards.corrupt(images, draw))
    filled = fill_smoothly(images, forwards.mask(draw, SHAPE))
    assert torch.equal(forwards.corrupt(images, draw), reduce_and_enlarge(filled, 4))


def test_other_steps_follow_the_order_given(images: Tensor) -> None:
    chain = Chain(steps={"decolorise": None, "downsample": {"factor": 2}})
    grey = luma(images).expand_as(images)
    torch.testing.assert_close(
        chain.corrupt(images, {"downsample.factor": torch.full((6,), 2)}), reduce_and_enlarge(grey, 2)
    )


def test_steps_have_the_same_draws_as_outside_a_chain(images: Tensor) -> None:
    draw = Chain().sample(keys(6), SHAPE)
    alone = GridMask().sample(keys(6).fold("grid_mask"), SHAPE)
    assert torch.equal(draw["grid_mask.cells"], alone["cells"])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"chain": {}}, "must not name chain itself"),
        ({"rotation": {}}, "must name pretexts that repair pixels; rotation repairs none"),
        ({"grid_mask": {"fill": "noise"}}, r"chain\.steps\.grid_mask: fill"),
        ({"grid_mask": {"gird": 3}}, r"option of pretexts\.chain\.steps\.grid_mask 'gird'\. Did you mean 'grid'"),
        ({"gridmask": {}}, r"unknown pretext 'gridmask'\. Did you mean 'grid_mask'"),
    ],
)
def test_invalid_chains_are_refused(steps: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Chain(steps=steps)


def three() -> dict:
    return {"grid_mask": GridMask(), "decolorise": Decolorise(weight=2), "downsample": Downsample()}


def test_shares_follow_the_weights() -> None:
    assigned = Mixture(three()).assign(keys(8000))
    assert bool(((assigned.bincount() - torch.tensor([2000, 4000, 2000])).abs() < 250).all())


def test_a_weight_of_0_turns_a_pretext_off() -> None:
    mixture = Mixture({"grid_mask": GridMask(weight=0), "downsample": Downsample()})
    assert list(mixture.pretexts) == ["downsample"]
    with pytest.raises(UserError, match="no pretext to train on"):
        Mixture({"grid_mask": GridMask(weight=0)})


def test_grey_images_get_a_usable_pretext(images: Tensor) -> None:
    grey = luma(images).expand_as(images).repeat(20, 1, 1, 1)
    damaged, parts = Mixture(three()).prepare(grey, keys(120))
    assert sorted(part.name for part in parts) == ["downsample", "grid_mask"]
    assert len(damaged) == 120


def test_images_without_a_usable_pretext_have_zero_loss(images: Tensor) -> None:
    grey = luma(images).expand_as(images)
    _, (part,) = Mixture({"decolorise": Decolorise()}).prepare(grey, keys(6))
    assert not part.pretext.loss(torch.ones(6, 2, 48, 64), part.images, part.draw).any()


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("backwards", [False, True])
def test_damage_does_not_depend_on_the_batch(size: int, backwards: bool) -> None:
    pretexts = {name: with_random_targets(PRETEXTS.get(name)()) for name in PRETEXTS.names()}
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(
        torch.rand(64, 3, 6, 6, generator=generator), size=(48, 48), mode="bicubic"
    )
    images = images.clamp(0, 1)
    mixture = Mixture(pretexts)

    def damaged(order: Tensor, size: int) -> dict[int, tuple[str, Tensor]]:
        found = {}
        for rows in order.split(size):
            images_seen, parts = mixture.prepare(images[rows], Keys(5, 2, rows))
            for part in parts:
                for row, seen in zip(rows[part.source_rows].tolist(), images_seen[part.rows], strict=True):
                    found[row] = (part.name, seen)
        return found

    order = torch.arange(64)
    whole = damaged(order, 64)
    again = damaged(order.flip(0) if backwards else order, size)
    assert whole.keys() == again.keys()
    for row, (name, seen) in whole.items():
        assert again[row][0] == name
        torch.testing.assert_close(again[row][1], seen, atol=1e-6, rtol=0)


def test_instances_of_an_image_are_adjacent(images: Tensor) -> None:
    mixture = Mixture({"grid_mask": GridMask(grid=3, instances_per_image="all")})
    damaged, parts = mixture.prepare(images, keys(6))
    (part,) = parts
    assert len(damaged) == 54
    assert torch.equal(part.source_rows, torch.arange(6).repeat_interleave(9))
    assert bool((part.mask.view(6, 9, 1, 48, 64).sum(1) == 1).all())  # together they cover each image once


def test_rows_of_parts_tile_the_batch(images: Tensor) -> None:
    square = images[..., :48].repeat(8, 1, 1, 1)
    damaged, parts = Mixture({**three(), "rotation": Rotation()}).prepare(square, keys(48))
    edges = [(part.rows.start, part.rows.stop) for part in parts]
    assert edges[0][0] == 0 and edges[-1][1] == len(damaged)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    for part in parts:
        assert torch.equal(part.images, square[part.source_rows])


def test_hidden_tokens_are_known_unless_the_damage_is_fixed(images: Tensor) -> None:
    grid, options = (6, 8), {"grid": "3x4", "hidden": "ratio", "ratio": 0.5}
    mixture = Mixture(
        {"grid_mask": GridMask(**options), "chain": Chain(steps={"grid_mask": options}), "grey": Decolorise()}
    )
    for name, count in {"grid_mask": 24, "chain": 24, "grey": 0}.items():
        part, _ = mixture.prepare_all(name, images, keys(6))
        assert part.hidden_tokens(grid) == count
    part, _ = mixture.prepare_all("grid_mask", images, keys(6), torch.arange(6))
    assert part.hidden_tokens is None and part.mask.flatten(1).float().mean(1).tolist() == pytest.approx([1 / 12] * 6)


def test_hidden_tokens_of_an_overridden_mask_are_unknown() -> None:
    class Own(Decolorise):
        def mask(self, draw, shape):
            return torch.zeros(len(draw), 1, *shape[1:], dtype=torch.bool)

    assert Decolorise().hidden_tokens(SHAPE, (6, 8)) == 0 and Own().hidden_tokens(SHAPE, (6, 8)) is None
    assert Chain(steps={"decolorise": {}}).hidden_tokens(SHAPE, (6, 8)) == 0
