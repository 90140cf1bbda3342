"""The contract of a pretext, for every registered one; a new pretext is tested without a test file of its own."""

from dataclasses import fields, replace

import pytest
import torch
from random_targets import with_random_targets
from torch import nn

from vision_mtl.config.options import options_of
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.training.repair import zero_prediction

NAMES = PRETEXTS.names()
SHAPES = [(3, 64, 64), (3, 48, 64), (1, 32, 32), (3, 61, 61)]
EVERY = [(name, shape) for name in NAMES for shape in SHAPES]


def build(name: str, shape: tuple[int, int, int]) -> Pretext:
    """The pretext with its defaults; skips a shape that it refuses by a `UserError`."""
    pretext = PRETEXTS.get(name)()
    try:
        pretext.check(shape)
    except UserError as error:
        assert name in str(error)
        pytest.skip(f"{name} refuses {shape}: {error}")
    return with_random_targets(pretext)


def images_of(shape: tuple[int, int, int], count: int = 6) -> torch.Tensor:
    """Smooth colourful images with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, shape[0], 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=shape[1:], mode="bicubic").clamp(0, 1)
    return (0.9 * smooth + 0.1 * torch.rand(count, *shape, generator=generator)).clamp(0, 1)


def keys_of(count: int = 6, seed: int = 0) -> Keys:
    return Keys(seed, 3, torch.arange(count) + 100)


def in_pairs(pretext: Pretext, images: torch.Tensor, keys: Keys) -> tuple[torch.Tensor, Keys]:
    """Two views of half the images for pretexts that compare images; all others get the images unchanged."""
    if pretext.output != "embedding":
        return images, keys
    half = torch.arange(len(images)) // 2
    return images[half], replace(keys.select(half), instance=torch.arange(len(images)) % 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented_and_named_in_the_signature(name: str) -> None:
    options = options_of(PRETEXTS.get(name))
    own = {f.name for f in fields(PRETEXTS.get(name)) if f.init}
    assert {option.name for option in options} == own
    assert all(option.help for option in options)


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_draws_depend_on_the_image_not_the_batch(name: str, shape: tuple[int, int, int]) -> None:
    pretext = build(name, shape)
    whole = pretext.sample(keys_of(64), shape)
    for size in (1, 7):
        rows = [
            pretext.sample(keys_of(64).select(torch.arange(i, min(i + size, 64))), shape) for i in range(0, 64, size)
        ]
        for key, value in whole.items():
            assert torch.equal(torch.cat([row[key] for row in rows]), value)
    backwards = pretext.sample(keys_of(64).select(torch.arange(63, -1, -1)), shape)
    for key, value in whole.items():
        assert torch.equal(backwards[key].flip(0), value)


@pytest.mark.parametrize("name", NAMES)
def test_random_draws_differ_between_epochs_and_seeds(name: str) -> None:
    pretext = build(name, (3, 64, 64))
    index = torch.arange(256)
    first, later, other = (pretext.sample(Keys(s, e, index), (3, 64, 64)) for s, e in ((0, 0), (0, 1), (1, 0)))
    varying = [
        key
        for key, value in first.items()
        if key != "image"  # the number of the image is not random
        and len(value.flatten(1).unique(dim=0) if value.ndim > 1 else value.unique()) > 1
    ]
    for key in varying:
        assert not torch.equal(first[key], later[key]) and not torch.equal(first[key], other[key])


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_damage_is_pure_and_in_range(name: str, shape: tuple[int, int, int]) -> None:
    pretext, images = build(name, shape), images_of(shape)
    before, draw = images.clone(), pretext.sample(keys_of(), shape)
    kept = {key: value.clone() for key, value in draw.items()}
    damaged = pretext.corrupt(images, draw)
    assert torch.equal(damaged, pretext.corrupt(images, draw))
    pretext.loss(zero_prediction(pretext, images), images, draw)
    pretext.picture(images, draw)
    assert torch.equal(images, before) and all(torch.equal(draw[key], kept[key]) for key in kept)
    assert damaged.shape == images.shape and damaged.dtype == torch.float32
    assert damaged.min() >= 0 and damaged.max() <= 1
    assert not torch.equal(damaged, images)


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_images_are_damaged_independently(name: str, shape: tuple[int, int, int]) -> None:
    pretext, images = build(name, shape), images_of(shape)
    draw = pretext.sample(keys_of(), shape)
    whole = pretext.corrupt(images, draw)
    for row in range(len(images)):
        alone = pretext.corrupt(images[row : row + 1], {key: value[row : row + 1] for key, value in draw.items()})
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_hidden_pixels_have_no_influence(name: str, shape: tuple[int, int, int]) -> None:
    pretext, images = build(name, shape), images_of(shape)
    draw = pretext.sample(keys_of(), shape)
    mask = pretext.mask(draw, shape)
    if mask is None:
        assert pretext.hidden_tokens(shape, (4, 4)) == 0
        return
    assert mask.dtype == torch.bool and mask.shape == (len(images), 1, *shape[1:])
    assert bool(mask.flatten(1).any(1).all()) and not bool(mask.flatten(1).all(1).any())
    prediction = torch.randn(len(images), pretext.num_outputs(shape[0]), *shape[1:]) * 0.1
    damaged = pretext.corrupt(images, draw)
    expected = [
        damaged,
        pretext.repair(prediction, damaged, draw),
        pretext.reference(images, draw),
        pretext.picture(images, draw),
    ]
    for junk in (float("nan"), 0.0, 1.0):
        other = torch.where(mask, junk, images)
        seen = pretext.corrupt(other, draw)
        found = [
            seen,
            pretext.repair(prediction, seen, draw),
            pretext.reference(other, draw),
            pretext.picture(other, draw),
        ]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_loss_is_per_image_and_a_mean_over_scored_pixels(name: str, shape: tuple[int, int, int]) -> None:
    pretext = build(name, shape)
    images, keys = in_pairs(pretext, images_of(shape), keys_of())
    draw = pretext.sample(keys, shape)
    target = pretext.target(images, draw)
    chance = pretext.loss(zero_prediction(pretext, images), images, draw)
    assert chance.shape == (len(images),) and chance.dtype == torch.float32
    assert bool(chance.isfinite().all()) and bool((chance > 0).all())
    if not target.is_floating_point():
        return
    assert bool((pretext.loss(target, images, draw) < (1e-6 if pretext.output == "features" else 1e-9)).all())
    if pretext.output == "features":
        return  # a cosine depends on the target's length
    off = pretext.loss(target + 0.1, images, draw)
    torch.testing.assert_close(off, off[:1].expand_as(off))  # the same error has the same loss for every draw
    half = pretext.loss((target + 0.1).bfloat16(), images, draw)
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_a_perfect_prediction_repairs_and_references_are_images(name: str, shape: tuple[int, int, int]) -> None:
    pretext, images = build(name, shape), images_of(shape)
    draw = pretext.sample(keys_of(), shape)
    target = pretext.target(images, draw)
    if pretext.output == "embedding":
        assert target.shape == (len(images),) and not target.is_floating_point()
        return
    if pretext.output == "features":
        assert target.shape == (len(images), pretext.num_outputs(shape[0]))
        return
    if pretext.output == "logits":
        assert target.shape == (len(images),) and int(target.max()) < pretext.num_outputs(shape[0])
        assert len(pretext.class_names) == pretext.num_outputs(shape[0])
        return
    reference = pretext.reference(images, draw)
    assert reference.shape == images.shape and reference.min() >= 0 and reference.max() <= 1
    damaged, scored = pretext.corrupt(images, draw), pretext.scored(images, draw)
    repaired = pretext.repair(target, damaged, draw)
    wrong = torch.where(scored, (repaired - images).abs(), 0.0)
    assert wrong.max() < 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_constant_images_and_one_image_work(name: str) -> None:
    shape = (3, 32, 32)
    pretext = build(name, shape)
    for value in (0.0, 0.5, 1.0):
        images = torch.full((1, *shape), value)
        draw = pretext.sample(keys_of(1), shape)
        damaged = pretext.corrupt(images, draw)
        assert bool(damaged.isfinite().all())
        prediction = zero_prediction(pretext, images).requires_grad_()
        pretext.loss(prediction, images, draw).sum().backward()
        assert bool(prediction.grad.isfinite().all())
        if not bool(pretext.usable(images)):
            assert not bool(prediction.grad.any())


@pytest.mark.parametrize("name", NAMES)
def test_enumerate_gives_distinct_damages(name: str) -> None:
    shape = (3, 32, 32)
    pretext = build(name, shape)
    repeated, draw = pretext.enumerate(images_of(shape, 1))
    damaged = pretext.corrupt(repeated, draw)
    assert len(damaged) == len(repeated) and all(len(value) == len(repeated) for value in draw.values())
    assert len(damaged.flatten(1).unique(dim=0)) == len(damaged)


@pytest.mark.parametrize("name", NAMES)
def test_damages_are_named_and_can_be_drawn_by_number(name: str) -> None:
    shape = (3, 32, 32)
    pretext, images = build(name, shape), images_of(shape, 1)
    repeated, draw = pretext.enumerate(images)
    names, shares = pretext.damages(shape), pretext.damage_shares(shape)
    assert len(names) == len(set(names)) == len(repeated) == len(shares) and all(names)
    assert shares.sum() == pytest.approx(1, abs=1e-5) and bool((shares > 0).all())
    which = torch.arange(len(names)).flip(0)
    drawn = pretext.sample_damage(keys_of(len(names)), repeated, which)
    assert torch.equal(pretext.corrupt(repeated, drawn), pretext.corrupt(repeated, draw).flip(0))


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_rules_use_visible_pixels_only_and_one_is_the_reference(name: str, shape: tuple[int, int, int]) -> None:
    pretext, images = build(name, shape), images_of(shape)
    if not pretext.repairs:
        pytest.skip("this pretext repairs no pixels")
    draw = pretext.sample(keys_of(), shape)
    rules, scored = pretext.rules(images, draw), pretext.scored(images, draw)
    assert all(rule.shape == images.shape and rule.min() >= 0 and rule.max() <= 1 for rule in rules.values())
    reference = torch.where(scored, pretext.reference(images, draw), 0.0)
    assert torch.allclose(torch.where(scored, rules[pretext.classic], 0.0), reference, atol=1e-5)
    if (mask := pretext.mask(draw, shape)) is not None:
        for name_, rule in pretext.rules(torch.where(mask, float("nan"), images), draw).items():
            assert torch.equal(torch.where(scored, rule, 0.0), torch.where(scored, rules[name_], 0.0))


@pytest.mark.parametrize("name", NAMES)
def test_instances_of_one_image_differ(name: str) -> None:
    shape = (3, 32, 32)
    pretext = build(name, shape)
    count = pretext.num_instances(shape)
    keys = Keys(0, 0, torch.zeros(count, dtype=torch.int64), instance=torch.arange(count))
    images = images_of(shape, 1).expand(count, -1, -1, -1)
    damaged = pretext.corrupt(images, pretext.sample(keys, shape))
    assert len(damaged.flatten(1).unique(dim=0)) == count


class Small(nn.Module):
    """A few convolutions, enough to fit one batch a little."""

    def __init__(self, channels: int, outputs: int, pooled: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2), nn.GELU(), nn.Conv2d(32, 32, 5, padding=2), nn.GELU()
        )
        self.head = nn.Conv2d(32, outputs, 1)
        self.pooled = pooled
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.head(x.mean((2, 3), keepdim=True))[..., 0, 0] if self.pooled else self.head(x)


@pytest.mark.parametrize("name", NAMES)
def test_ten_steps_on_one_batch_lower_the_loss(name: str) -> None:
    shape = (3, 32, 32)
    pretext = build(name, shape)
    images, keys = in_pairs(pretext, images_of(shape), keys_of())
    draw = pretext.sample(keys, shape)
    torch.manual_seed(0)
    model = Small(3, pretext.num_outputs(3), pooled=not pretext.repairs)
    if pretext.output == "embedding":  # equal embeddings at zero have no gradient
        nn.init.normal_(model.head.weight)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    damaged, losses = pretext.corrupt(images, draw), []
    for _ in range(11):
        loss = pretext.loss(model(damaged), images, draw).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    chance = pretext.loss(zero_prediction(pretext, images), images, draw).mean().item()
    assert losses[0] == pytest.approx(chance, rel=0.5 if pretext.output == "embedding" else 1e-5)
    assert losses[-1] < losses[0]
