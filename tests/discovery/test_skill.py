"""Skill of models with known predictions: zeros, the truth, and a share of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, measure_damages
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.discovery.skill import squared_error
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture

NAMES = ["grid_mask", "decolorise", "downsample", "rotation"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root: Path = tmp_path_factory.mktemp("data")
    data = Data(unlabelled=["bundled/photos", "bundled/faces"], root=str(root))
    return build_pool(data, {}, image_size=(32, 32))


class Oracle(nn.Module):
    """Predicts the share `truth` of the target of the last prepared part."""

    def __init__(self, mixture: Mixture, truth: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.mixture, self.truth = mixture, truth
        self.part = None

    def forward(self, damaged, requests, drop_draw=None):
        part, pretext = self.part, self.part.pretext
        if pretext.output == "logits":
            one_hot = nn.functional.one_hot(part.draw["turn"], 4).float()
            return {part.name: [one_hot * 50 * self.truth]}
        return {part.name: [pretext.target(part.images, part.draw) * self.truth]}


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch):
    """A function that builds a model which knows the targets and predicts a share of them."""

    def make(mixture: Mixture, truth: float) -> Oracle:
        model = Oracle(mixture, truth)
        original = Mixture.prepare_all

        def spy(self, name, images, keys, damage=None):
            part, damaged = original(self, name, images, keys, damage)
            model.part = part
            return part, damaged

        monkeypatch.setattr(Mixture, "prepare_all", spy)
        return model

    return make


def mixture_of(names: list[str]) -> Mixture:
    return Mixture({name: PRETEXTS.get(name)() for name in names})


@pytest.mark.slow
def test_the_truth_has_skill_1_and_zeros_the_untrained_skill(pool: Pool, oracle) -> None:
    mixture = mixture_of(NAMES)
    perfect = score_pretexts(oracle(mixture, 1.0), pool, mixture)
    for name in NAMES:
        assert perfect["skill"][name]["value"] == pytest.approx(1, abs=0.01)
    nothing = score_pretexts(oracle(mixture, 0.0), pool, mixture)
    assert nothing["skill"] == nothing["skill_untrained"] == perfect["skill_untrained"]
    for name in ("decolorise", "rotation"):
        assert nothing["skill"][name]["value"] == pytest.approx(0, abs=0.005)
    assert nothing["skill"]["downsample"]["value"] > 0.02  # back-projection, better than bicubic without learning
    assert not any(score["learned"] for score in nothing["skill_learned"].values())


@pytest.mark.slow
def test_skill_by_source_and_no_colour_skill_for_grey_sources(pool: Pool, oracle) -> None:
    mixture = mixture_of(NAMES)
    found = score_pretexts(oracle(mixture, 1.0), pool, mixture)
    assert set(found["skill_by_source"]) == {"bundled/photos", "bundled/faces"}
    assert "decolorise" not in found["skill_by_source"]["bundled/faces"]
    photos = found["skill_by_source"]["bundled/photos"]["grid_mask"]
    test_clusters = len(np.unique(pool.cluster[pool.indices("test", source="bundled/photos")]))
    assert photos["num_clusters"] == test_clusters < photos["n"]


def measured(model: nn.Module, pool: Pool, mixture: Mixture, name: str, count: int) -> DamageErrors:
    """The errors on `count` validation images, with rules fitted to a few training images."""
    training = fold_images(pool, pool.indices("train")[:40], torch.device("cpu"))
    return measure_damages(ScoredNetwork(model, pool, mixture), name, pool.indices("val")[:count], training, 0)


def test_every_damage_is_scored_whatever_the_instances(pool: Pool, oracle) -> None:
    mixture = Mixture({"grid_mask": PRETEXTS.get("grid_mask")(grid=2, instances_per_image="all")})
    errors = measured(oracle(mixture, 1.0), pool, mixture, "grid_mask", 10)
    assert errors.model.shape == errors.classic.shape == (10, 4) and len(errors.damages) == 4


@pytest.mark.parametrize("hidden", ["ratio", "after", "centre"])
def test_damages_that_cannot_be_listed_are_drawn(pool: Pool, oracle, hidden: str) -> None:
    mixture = Mixture({"grid_mask": PRETEXTS.get("grid_mask")(grid=4, hidden=hidden)})
    errors = measured(oracle(mixture, 1.0), pool, mixture, "grid_mask", 10)
    assert errors.damages == ["all"] and errors.shares.tolist() == [1.0] and errors.classic.all()
    assert errors.model.max() < 1e-9 and "linear" in errors.rules


def test_squared_error_counts_scored_pixels_only() -> None:
    images, repaired = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    scored = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    scored[0, 0, 0, 0] = True
    repaired[0, :, 0, 0] = torch.tensor([0.0, 0.5, 1.0])
    repaired[0, :, 1, 1] = float("nan")
    assert squared_error(repaired, images, scored).tolist() == pytest.approx([1.25 / 3, 0])


def test_the_model_keeps_its_mode(pool: Pool, oracle) -> None:
    mixture = mixture_of(["downsample"])
    model = oracle(mixture, 0.0).train()
    measured(model, pool, mixture, "downsample", 5)
    assert model.training
