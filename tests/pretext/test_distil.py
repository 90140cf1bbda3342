"""`distil`: the draw holds each image's features, damage is drawn for each image, and the loss is a cosine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.distil import Distil
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.objective import step_loss
from vision_mtl.training.repair import PretextObjective, head_specs, measure_chance_losses

SHAPE = (3, 32, 32)
HIDE = {"grid_mask": {"hidden": "ratio", "grid": 2, "ratio": 0.5}}


def keys(count: int, epoch: int = 0) -> Keys:
    return Keys(0, epoch, torch.arange(count))


def features(count: int, width: int = 4, views: int = 2, grid: tuple[int, ...] = ()) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, views, width, *grid)).astype(np.float16)


def bound(count: int = 64, grid: tuple[int, ...] = (), **options: Any) -> Distil:
    pretext = Distil(width=4, **options)
    return pretext.bound(features(count, views=1 + pretext.mirror, grid=grid))


def test_the_draw_has_the_features_of_the_image_and_of_its_mirror_image() -> None:
    pretext, images = bound(), torch.rand(64, *SHAPE)
    draw = pretext.sample(keys(64), SHAPE)
    mirrored = draw["mirrored"]
    assert 20 < int(mirrored.sum()) < 44
    wanted = torch.from_numpy(features(64)).float()[torch.arange(64), mirrored.long()]
    assert torch.equal(draw["features"], wanted)
    shown = pretext.corrupt(images, draw)
    assert torch.equal(shown[mirrored], images[mirrored].flip(3)) and torch.equal(shown[~mirrored], images[~mirrored])
    still = bound(mirror=False)
    assert torch.equal(still.corrupt(images, still.sample(keys(64), SHAPE)), images)


def test_the_loss_is_one_minus_the_cosine() -> None:
    pretext, images = bound(), torch.rand(2, *SHAPE)
    draw = {"features": torch.tensor([[3.0, 4.0, 0, 0], [0, 0, 0, 0]]), "mirrored": torch.zeros(2, dtype=torch.bool)}
    prediction = torch.tensor([[3.0, 0, 0, 0], [1, 2, 3, 4]], requires_grad=True)
    loss = pretext.loss(prediction, images, draw)
    assert loss.tolist() == pytest.approx([1 - 0.6, 1.0])
    loss.sum().backward()
    assert bool(prediction.grad[0].any()) and not bool(prediction.grad[1].any())  # no features: nothing to learn
    assert pretext.loss(torch.zeros(2, 4), images, draw).tolist() == [1.0, 1.0]


def test_a_map_is_compared_on_the_grid_of_the_prediction() -> None:
    pretext, images = bound(features="map", grid=(4, 4)), torch.rand(3, *SHAPE)
    draw = pretext.sample(keys(3), SHAPE)
    target = draw["features"]
    assert target.shape == (3, 4, 4, 4)
    assert pretext.loss(target, images, draw).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    coarse = target.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert pretext.loss(coarse, images, draw).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    fine = torch.nn.functional.interpolate(target, size=(8, 6), mode="bilinear", align_corners=False)
    assert pretext.loss(fine, images, draw).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    assert pretext.loss(torch.zeros(3, 4), images, draw).tolist() == [1.0] * 3
    hidden = bound(features="map", grid=(4, 4), damage=HIDE)
    assert hidden.mask(hidden.sample(keys(3), SHAPE), SHAPE) is None  # positions that are hidden are predicted too


def test_one_damage_is_drawn_for_each_image_by_weight() -> None:
    damage = {"none": {"weight": 1}, "downsample": {"factor": 4, "weight": 2}, **HIDE, "decolorise": {"weight": 0}}
    pretext, images = bound(400, damage=damage, mirror=False), torch.rand(400, *SHAPE)
    draw = pretext.sample(keys(400), SHAPE)
    shares = draw["damage"].bincount() / 400
    assert shares.tolist() == pytest.approx([0.25, 0.5, 0.25], abs=4 * math.sqrt(0.25 / 400))
    damaged, mask = pretext.corrupt(images, draw), pretext.mask(draw, SHAPE)
    same = (damaged == images).flatten(1).all(1)
    assert torch.equal(same, draw["damage"] == 0)
    assert mask is not None and torch.equal(mask.flatten(1).any(1), draw["damage"] == 2)
    junk = torch.where(mask, torch.nan, images)
    assert torch.equal(pretext.corrupt(junk, draw), damaged) and bool(pretext.picture(junk, draw).isfinite().all())
    rows = torch.arange(399, 390, -1)
    part = pretext.sample(keys(400).select(rows), SHAPE)
    assert all(torch.equal(value, draw[key][rows]) for key, value in part.items())


def test_hidden_tokens_are_known_where_every_damage_hides_as_many() -> None:
    assert bound().hidden_tokens(SHAPE, (4, 4)) == 0
    assert bound(damage=HIDE).hidden_tokens(SHAPE, (4, 4)) == GridMask(**HIDE["grid_mask"]).hidden_tokens(SHAPE, (4, 4))
    assert bound(damage={"none": {}, **HIDE}).hidden_tokens(SHAPE, (4, 4)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damage": {"rotation": {}}}, "rotation repairs none"),
        ({"damage": {"grid_mask": {"gird": 3}}}, "distil.damage.grid_mask 'gird'. Did you mean 'grid'"),
        ({"damage": {"decolorise": 3}}, "distil.damage.decolorise must be a mapping of options"),
        ({"damage": {"none": "x"}}, "distil.damage.none must be a mapping of options"),
        ({"damage": {"grid_mask": {"fill": "learned"}}}, "fill=learned"),
        ({"damage": {"none": {"share": 1}}}, "takes weight alone"),
        ({"damage": {"none": {"weight": 0}}}, "a weight above 0"),
        ({"damage": {"greymask": {}}}, "greymask"),
        ({"damage": {"distil": {}}}, "distil repairs none"),
        ({"damage": {"grid_mask": {"grid": "many"}}}, r"distil\.damage\.grid_mask: grid must be cells"),
        ({"width": 1}, "distil.width must be 2 or more; found 1"),
        ({"teacher_size": 0}, "distil.teacher_size must be 1 or more; found 0"),
        ({"teacher": ""}, "distil.teacher"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Distil(**options)


def test_damage_that_does_not_fit_the_images_is_named() -> None:
    with pytest.raises(UserError, match=r"distil\.damage\.decolorise: decolorise needs RGB"):
        Distil(damage={"decolorise": {}}).check((1, 32, 32))


def test_without_features_it_says_where_they_come_from() -> None:
    with pytest.raises(UserError, match="no targets here"):
        Distil().sample(keys(2), SHAPE)


def test_a_module_as_teacher_survives_binding() -> None:
    module = torch.nn.Flatten()
    pretext = Distil(width=4).taught_by(module, "flat")
    assert pretext.teacher == "module flat" and pretext.feature_request.teacher is module
    assert pretext.bound(features(3)).feature_request.teacher is module


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_resnet", "convnext_atto"])
def test_a_step_with_pooled_features_and_maps_beside_a_repair(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name, image_size=(32, 32))
    pretexts = {
        "grid_mask": GridMask(),
        "distil": bound(12, damage=HIDE),
        "map": bound(12, features="map", grid=(2, 2), damage=HIDE),
    }
    decoder = DECODERS.get("transformer" if "vit" in name else "stages")()
    maps = MapSpec(backbone.channels, backbone.map_sizes, (32, 32))
    model = SharedModel(backbone, decoder.build(maps), head_specs(pretexts, 3)).train()
    images, mixture = torch.rand(12, *SHAPE), Mixture(pretexts)
    chance = measure_chance_losses(mixture, images, keys(12))
    assert chance["distil"] == pytest.approx(1.0) and chance["map"] == pytest.approx(1.0)
    loss = step_loss(model, PretextObjective(mixture, chance), (images, keys(12)))
    loss.total.backward()
    assert set(loss.shown) == set(pretexts) and bool(loss.total.isfinite())
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.heads.parameters() if p.ndim > 1)


def test_a_vit_encodes_the_visible_tokens_alone() -> None:
    backbone = Backbone("vit_tiny_patch16_224", image_size=(32, 32))
    pretext = bound(4, damage=HIDE, mirror=False)
    decoder = DECODERS.get("transformer")().build(MapSpec(backbone.channels, backbone.map_sizes, (32, 32)))
    model = SharedModel(backbone, decoder, head_specs({"distil": pretext}, 3)).eval()
    part, damaged = Mixture({"distil": pretext}).prepare_all("distil", torch.rand(4, *SHAPE), keys(4))
    counts: list[int] = []
    backbone.model.blocks[0].register_forward_pre_hook(lambda module, inputs: counts.append(inputs[0].shape[1]))
    assert model(damaged, [part])["distil"][0].shape == (4, 4)
    assert counts == [3]  # two of four tokens are hidden; the class token is seen
