"""Views of one image and their draws; the loss is NT-Xent divided by its chance value."""

import math
from dataclasses import replace

import pytest
import torch
from skimage.data import astronaut
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.colour import luma
from vision_mtl.pretext.contrast import Contrast
from vision_mtl.pretext.mixture import Mixture

SHAPE = (3, 32, 32)


def photographs(count: int = 8) -> torch.Tensor:
    picture = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    return torch.stack([F.avg_pool2d(picture[:, i : i + 96, 200 : 200 + 96], 3) for i in range(0, 20 * count, 20)])


def test_the_loss_is_nt_xent_over_its_chance_value() -> None:
    torch.manual_seed(0)
    image = torch.arange(6).repeat_interleave(2)
    vectors = torch.randn(12, 16)
    found = Contrast(temperature=0.5).loss(vectors, torch.zeros(12, *SHAPE), {"image": image})
    for i in range(12):
        partner = i ^ 1
        cosine = [torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() / 0.5 for j in range(12)]
        others = sum(math.exp(cosine[j]) for j in range(12) if j != i)
        assert found[i].item() == pytest.approx(-math.log(math.exp(cosine[partner]) / others) / math.log(11), rel=1e-5)


def test_loss_is_near_0_for_separate_embeddings_and_1_for_equal_ones() -> None:
    image = torch.arange(8).repeat_interleave(2)
    apart = torch.eye(8)[image]
    loss = Contrast().loss
    assert loss(apart, torch.zeros(16, *SHAPE), {"image": image}).max() < 0.05
    torch.testing.assert_close(loss(torch.ones(16, 8), torch.zeros(16, *SHAPE), {"image": image}), torch.ones(16))


def test_with_several_views_negatives_are_other_images_only() -> None:
    torch.manual_seed(0)
    image = torch.arange(4).repeat_interleave(3)
    vectors = torch.randn(12, 16)
    pretext = Contrast(views=3, temperature=0.5)
    found = pretext.loss(vectors, torch.zeros(12, *SHAPE), {"image": image})
    cosine = F.cosine_similarity(vectors[:, None], vectors[None], dim=2).div(0.5).exp()
    for i in range(12):
        negatives = cosine[i][image != image[i]].sum()
        pairs = [
            -(cosine[i, j] / (cosine[i, j] + negatives)).log() for j in range(12) if j != i and image[j] == image[i]
        ]
        assert found[i].item() == pytest.approx(sum(pairs).item() / 2 / math.log(10), rel=1e-5)
    torch.testing.assert_close(
        pretext.loss(torch.ones(12, 4), torch.zeros(12, *SHAPE), {"image": image}), torch.ones(12)
    )


def test_a_batch_without_negatives_has_zero_loss_and_gradient() -> None:
    vectors = torch.randn(4, 8, requires_grad=True)
    loss = Contrast().loss(vectors, torch.zeros(4, *SHAPE), {"image": torch.zeros(4, dtype=torch.int64)})
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(4)) and torch.equal(vectors.grad, torch.zeros(4, 8))


def test_a_view_without_a_positive_has_zero_loss() -> None:
    vectors = torch.randn(5, 8, requires_grad=True)
    image = torch.tensor([0, 0, 1, 1, 2])
    loss = Contrast().loss(vectors, torch.zeros(5, *SHAPE), {"image": image})
    assert loss[4] == 0 and bool((loss[:4] > 0).all())
    alone = Contrast().loss(vectors[:2], torch.zeros(2, *SHAPE), {"image": image[:2]})
    assert torch.equal(alone, torch.zeros(2))


@pytest.mark.parametrize("count", [2, 3])
def test_views_of_an_image_are_adjacent_in_a_mixture(count: int) -> None:
    mixture, keys = Mixture({"contrast": Contrast(views=count)}), Keys(0, 0, torch.arange(8) + 50)
    part, views = mixture.prepare_all("contrast", photographs(), keys)
    assert len(views) == 8 * count and part.source_rows.tolist() == [i for i in range(8) for _ in range(count)]
    assert part.draw["image"].tolist() == [50 + i for i in range(8) for _ in range(count)]
    assert bool(((views[0::count] - views[1::count]).abs().mean((1, 2, 3)) > 0.01).all())


def test_without_augmentation_a_view_is_the_image() -> None:
    plain = Contrast(smallest_crop=1.0, stretch=1.0, colour=0.0, grey=0.0, mirror=False)
    images = photographs()
    draw = plain.sample(Keys(0, 0, torch.arange(8)), SHAPE)
    torch.testing.assert_close(plain.corrupt(images, draw), images, atol=1e-5, rtol=0)


def test_mirrored_window_and_quarter_window() -> None:
    images = photographs(1)
    plain = {
        "image": torch.zeros(1, dtype=torch.int64),
        "window": torch.tensor([[1.0, 1.0, 0.0, 0.0]]),
        "mirrored": torch.tensor([True]),
        "light": torch.tensor([[1.0, 1.0, 1.0, 0.0]]),
    }
    torch.testing.assert_close(Contrast().corrupt(images, plain), images.flip(3), atol=1e-5, rtol=0)
    corner = plain | {"window": torch.tensor([[0.5, 0.5, -0.5, 0.5]]), "mirrored": torch.tensor([False])}
    expected = F.interpolate(images[:, :, :16, 16:], size=32, mode="bilinear", align_corners=False)
    # without the border, where interpolation reads pixels outside the window
    found = Contrast().corrupt(images, corner)
    torch.testing.assert_close(found[:, :, :31, 1:], expected[:, :, :31, 1:], atol=1e-5, rtol=0)


def test_hue_and_saturation_keep_the_luma_and_grey_removes_the_colours() -> None:
    images = 0.3 + 0.3 * photographs()  # away from the ends of the range, where colours are clipped
    draw = Contrast(smallest_crop=1.0, stretch=1.0, mirror=False).sample(Keys(0, 0, torch.arange(8)), SHAPE)
    turned = draw | {"light": torch.tensor([[1.0, 1.0, 0.5, 0.6]]).expand(8, -1)}
    found = Contrast().corrupt(images, turned)
    torch.testing.assert_close(luma(found), luma(images), atol=2e-3, rtol=0)
    assert (found - images).abs().mean() > 0.01
    grey = Contrast().corrupt(images, draw | {"light": torch.tensor([[1.0, 1.0, 0.0, 0.6]]).expand(8, -1)})
    assert grey.std(1).max() < 2e-3


def test_smaller_views_show_the_same_windows() -> None:
    images, keys = photographs(), Keys(0, 0, torch.arange(8))
    plain = {"stretch": 1.0, "colour": 0.0, "grey": 0.0}
    small, large = Contrast(**plain, view_size=16), Contrast(**plain)
    assert small.input_size(SHAPE) == (16, 16) and large.input_size(SHAPE) == (32, 32)
    draw = small.sample(keys, SHAPE)
    found = small.corrupt(images, draw)
    assert found.shape == (8, 3, 16, 16)
    expected = F.avg_pool2d(large.corrupt(images, draw), 2)
    assert (found - expected).abs().mean() < 0.02 < (found - expected.roll(1, 0)).abs().mean()


def test_views_differ_by_instance_and_square_ones_stay_inside_the_image() -> None:
    keys = Keys(0, 0, torch.arange(1000))
    first = Contrast().sample(replace(keys, instance=torch.zeros(1000, dtype=torch.int64)), SHAPE)
    second = Contrast().sample(replace(keys, instance=torch.ones(1000, dtype=torch.int64)), SHAPE)
    assert not torch.equal(first["window"], second["window"])
    height, width, offset = first["window"][:, 0], first["window"][:, 1], first["window"][:, 2:]
    shape, area = width / height, width * height
    assert area.min() >= 0.3 and area.max() <= 1
    assert 1 / 1.79 < shape.min() < 0.6 and 1.7 < shape.max() < 1.79
    assert bool((offset.abs() + area.sqrt()[:, None] <= 1 + 1e-6).all())
    square = Contrast(stretch=1.0).sample(keys, SHAPE)["window"]
    assert torch.equal(square[:, 0], square[:, 1])
    assert bool((square[:, 2:].abs() + square[:, :1] <= 1 + 1e-6).all())
    assert (first["light"][:, 2] == 0).float().mean() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "contrast.temperature must be above 0; found 0.0"),
        ({"smallest_crop": 0.0}, r"contrast.smallest_crop must lie in \(0, 1\]; found 0.0"),
        ({"views": 1}, "contrast.views must be 2 or more: one has no other to agree with; found 1"),
        ({"view_size": -1}, r"contrast.view_size must be 0 \(the image's own\) or more; found -1"),
        ({"stretch": 0.5}, "contrast.stretch must be 1 or more; found 0.5"),
        ({"grey": 1.5}, r"contrast.grey must lie in \[0, 1\]; found 1.5"),
        ({"width": 1}, "contrast.width must be 2 or more; found 1"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contrast(**options)


def test_views_larger_than_the_image_are_refused() -> None:
    Contrast(view_size=32).check(SHAPE)
    with pytest.raises(UserError, match=r"contrast\.view_size must be at most the image's 32 x 32 pixels; found 48"):
        Contrast(view_size=48).check(SHAPE)


def test_a_share_of_views_is_damaged_each_by_one_repair() -> None:
    images, plain = photographs().repeat(25, 1, 1, 1), {"colour": 0.0, "grey": 0.0}
    damage = {
        "none": {"weight": 2.67},
        "grid_mask": {"grid": 2},
        "decolorise": None,
        "downsample": {"weight": 2.0},
    }
    pretext = Contrast(**plain, damage=damage)
    draw = pretext.sample(Keys(0, 0, torch.arange(200)), SHAPE)
    shares = draw["damage"].bincount() / 200
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.15, 0.15, 0.3]), atol=0.1, rtol=0)
    whole = Contrast(**plain).corrupt(images, draw)
    found = pretext.corrupt(images, draw)
    changed = ((found - whole).abs() > 1e-6).any(1)  # (B, H, W)
    assert torch.equal(found[draw["damage"] == 0], whole[draw["damage"] == 0])
    hidden = changed[draw["damage"] == 1]
    assert (
        bool((hidden.flatten(1).sum(1) <= 16 * 16).all()) and hidden.float().mean() > 0.1
    )  # at most one of four cells
    grey = found[draw["damage"] == 2]
    assert grey.std(1).max() < 1e-6
    coarse, sharp = (x[draw["damage"] == 3] for x in (found, whole))
    detail = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (coarse, sharp)]
    assert detail[0] < 0.8 * detail[1]


def test_the_view_that_represents_all_is_undamaged() -> None:
    images, damage = photographs(1), {"grid_mask": None, "decolorise": None}
    repeated, draw = Contrast(damage=damage).enumerate(images)
    plain = Contrast().corrupt(*Contrast().enumerate(images))
    assert torch.equal(Contrast(damage=damage).corrupt(repeated, draw), plain)


def test_a_damage_is_drawn_apart_from_the_views() -> None:
    plain, damaged = (
        Contrast(damage=given).sample(Keys(0, 0, torch.arange(50)), SHAPE) for given in ({}, {"grid_mask": None})
    )
    assert "damage" not in plain and all(torch.equal(value, damaged[key]) for key, value in plain.items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"rotation": None}, "contrast.damage must name pretexts that repair pixels; rotation repairs none"),
        ({"grid_mask": {"grids": 2}}, "contrast.damage.grid_mask 'grids'. Did you mean 'grid'"),
        ({"grid_mask": {"fill": "learned"}}, "contrast.damage.grid_mask: fill=learned and instances_per_image"),
    ],
)
def test_a_damage_that_views_cannot_have_is_refused(damage: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contrast(damage=damage)


def test_a_damage_must_fit_the_views() -> None:
    with pytest.raises(UserError, match=r"^pretexts\.contrast\.damage\.grid_mask\.grid 20x20 does not fit"):
        Contrast(view_size=16, damage={"grid_mask": {"grid": 20}}).check(SHAPE)
    with pytest.raises(UserError, match=r"contrast\.damage\.decolorise: "):
        Contrast(damage={"decolorise": None}).check((1, 32, 32))
