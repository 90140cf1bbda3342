"""Frozen features: BatchNorm statistics of clean images, and an unchanged backbone."""

from pathlib import Path

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.evaluation.crops import crops_of
from vision_mtl.evaluation.features import (
    extract_features,
    extract_maps,
    pixel_features,
    pool_map,
    with_clean_statistics,
)
from vision_mtl.evaluation.online import online_probe
from vision_mtl.models.backbone import Backbone


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root: Path = tmp_path_factory.mktemp("data")
    return build_pool(Data(root=str(root)), {"faces": Task(source="bundled/faces")}, image_size=(32, 32))


def test_statistics_are_of_clean_images_and_the_original_is_unchanged(pool: Pool) -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", image_size=(32, 32)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    indices = pool.indices("train")
    clean = with_clean_statistics(backbone, pool, indices, batch_size=len(indices))
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert backbone.training and not clean.training
    first = next(n for n, m in clean.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    hook = clean.model.get_submodule(first).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    clean(pool.gather(indices))
    hook.remove()
    torch.testing.assert_close(
        clean.model.get_submodule(first).running_mean, seen[0].mean((0, 2, 3)), atol=1e-4, rtol=1e-3
    )


def test_a_backbone_without_batchnorm_is_only_copied(pool: Pool) -> None:
    backbone = Backbone("vit_tiny_patch16_224", image_size=(32, 32))
    clean = with_clean_statistics(backbone, pool, pool.indices("train"))
    assert all(
        torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), clean.state_dict().values(), strict=True)
    )


def test_features_do_not_depend_on_the_batch(pool: Pool) -> None:
    backbone = with_clean_statistics(Backbone("test_resnet", image_size=(32, 32)), pool, pool.indices("train"))
    indices = pool.indices("val")
    one = extract_features(backbone, pool, indices, batch_size=7)
    assert one.shape == (len(indices), backbone.num_features)
    torch.testing.assert_close(one, extract_features(backbone, pool, indices, batch_size=64), atol=1e-5, rtol=1e-4)


def test_every_map_is_pooled_in_one_pass(pool: Pool) -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32)).eval()
    indices, passes = pool.indices("val"), []
    hook = backbone.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    found = extract_maps(backbone, pool, indices, batch_size=7)
    hook.remove()
    assert sum(passes) == len(indices)
    with torch.no_grad():
        maps = backbone(pool.gather(indices))
    assert list(found) == [(layer, pooling) for layer in range(len(maps)) for pooling in ("mean", "max")]
    for layer, features in enumerate(maps):
        torch.testing.assert_close(found[layer, "mean"], features.mean((2, 3)), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[layer, "max"], features.flatten(2).max(2).values, atol=1e-5, rtol=1e-4)
    last = found[len(maps) - 1, "mean"]
    torch.testing.assert_close(last, extract_features(backbone, pool, indices), atol=1e-5, rtol=1e-4)


def test_features_are_means_over_crops_of_which_the_whole_image_is_the_first(pool: Pool) -> None:
    backbone, indices = Backbone("test_resnet", image_size=(32, 32)).eval(), pool.indices("val")
    images = pool.gather(indices)
    crops = list(crops_of(images, 4))
    assert torch.equal(crops[0], images) and all(crop.shape == images.shape for crop in crops)
    with torch.no_grad():
        maps = [backbone(crop) for crop in crops]
    found = extract_maps(backbone, pool, indices, batch_size=7, crops=4)
    for layer in range(len(maps[0])):
        expected = torch.stack([own[layer].amax((2, 3)) for own in maps]).mean(0)
        torch.testing.assert_close(found[layer, "max"], expected, atol=1e-5, rtol=1e-4)
    last = extract_features(backbone, pool, indices, crops=4)
    torch.testing.assert_close(last, found[len(maps[0]) - 1, "mean"], atol=1e-5, rtol=1e-4)


def test_crops_are_windows_of_three_quarters_of_a_side_that_differ() -> None:
    rows = torch.linspace(0, 1, 32)
    images = torch.stack((rows[:, None].expand(32, 32), rows.expand(32, 32)))[None]  # a pixel's place: row, column
    places = [crop.mean((2, 3))[0] for crop in crops_of(images, 10)]
    ranges = [crop.amax((2, 3))[0] - crop.amin((2, 3))[0] for crop in crops_of(images, 10)]
    for place, extent in zip(places[1:], ranges[1:], strict=True):
        torch.testing.assert_close(extent, torch.full((2,), 0.75), atol=0.03, rtol=0)
        assert bool(((place - 0.5).abs() <= 0.125 + 0.01).all())
    assert len({tuple(place.tolist()) for place in places}) == 10


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown pooling 'men'\. Did you mean 'mean'"):
        pool_map(torch.zeros(1, 1, 2, 2), "men")


def test_pixel_features_are_averages(pool: Pool) -> None:
    indices = pool.indices("val")[:3]
    images = pool.gather(indices)
    blocks = images.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    torch.testing.assert_close(pixel_features(pool, indices), blocks.flatten(1))
    assert pixel_features(pool, indices, side=100).shape == (3, images[0].numel())


def test_the_online_probe_reads_no_test_image_and_leaves_no_gradient(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = []
    original = Pool.indices
    monkeypatch.setattr(Pool, "indices", lambda self, split, **kw: splits.append(split) or original(self, split, **kw))
    backbone = Backbone("test_resnet", image_size=(32, 32))
    found = online_probe(with_clean_statistics(backbone, pool, pool.indices("train")), pool)
    assert set(splits) == {"train", "val"}
    faces = found["faces"]
    assert 0.5 <= faces["knn"] <= 1 and 0.4 < faces["chance"] < 0.8
    labels = torch.as_tensor(pool.labels["faces"])
    train, val = (labels[pool.indices(split, task="faces")] for split in ("train", "val"))
    assert faces["majority"] == pytest.approx((val == train.bincount().argmax()).float().mean().item())
    assert all(p.grad is None for p in backbone.parameters())
