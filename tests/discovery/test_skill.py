"""Skill on models whose answer is known: nothing, the truth, noise, and the reference itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.discovery.skill import measure_errors, squared_error
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture

NAMES = ["grid_mask", "decolorise", "downsample", "rotation"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root: Path = tmp_path_factory.mktemp("data")
    data = Data(unlabelled=["bundled/photos", "bundled/faces"], root=str(root))
    return build_pool(data, {}, image_size=(32, 32))


class Oracle(nn.Module):
    """Answers zeros, or what it is told for the pool's images: it looks the undamaged ones up by their order."""

    def __init__(self, mixture: Mixture, truth: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.mixture, self.truth = mixture, truth
        self.part = None

    def forward(self, damaged, requests, chance=None):
        part, pretext = self.part, self.part.pretext
        if pretext.output == "logits":
            one_hot = nn.functional.one_hot(part.draw["turn"], 4).float()
            return {part.name: [one_hot * 50 * self.truth]}
        return {part.name: [pretext.target(part.images, part.draw) * self.truth]}


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch):
    """A model that is shown the truth behind the scenes and gives a share of it."""

    def make(mixture: Mixture, truth: float) -> Oracle:
        model = Oracle(mixture, truth)
        original = Mixture.prepare_all

        def spy(self, name, images, keys):
            part, damaged = original(self, name, images, keys)
            model.part = part
            return part, damaged

        monkeypatch.setattr(Mixture, "prepare_all", spy)
        return model

    return make


def mixture_of(names: list[str]) -> Mixture:
    return Mixture({name: PRETEXTS.get(name)() for name in names})


@pytest.mark.slow
def test_the_truth_has_skill_1_and_nothing_the_untrained_skill(pool: Pool, oracle) -> None:
    mixture = mixture_of(NAMES)
    perfect = score_pretexts(oracle(mixture, 1.0), pool, mixture)
    for name in NAMES:
        assert perfect["skill"][name]["value"] == pytest.approx(1, abs=0.01)
    nothing = score_pretexts(oracle(mixture, 0.0), pool, mixture)
    assert nothing["skill"] == nothing["skill_untrained"] == perfect["skill_untrained"]
    for name in ("decolorise", "downsample", "rotation"):
        assert nothing["skill"][name]["value"] == pytest.approx(0, abs=0.005)


@pytest.mark.slow
def test_sources_are_told_apart_and_grey_ones_have_no_colour_skill(pool: Pool, oracle) -> None:
    mixture = mixture_of(NAMES)
    found = score_pretexts(oracle(mixture, 1.0), pool, mixture)
    assert set(found["skill_by_source"]) == {"bundled/photos", "bundled/faces"}
    assert "decolorise" not in found["skill_by_source"]["bundled/faces"]
    photos = found["skill_by_source"]["bundled/photos"]["grid_mask"]
    test_clusters = len(np.unique(pool.cluster[pool.indices("test", source="bundled/photos")]))
    assert photos["num_clusters"] == test_clusters < photos["n"] / 10


def test_instances_are_images_times_draws_times_cells(pool: Pool, oracle) -> None:
    indices = pool.indices("val")[:10]
    mixture = Mixture({"grid_mask": PRETEXTS.get("grid_mask")(grid=2, instances_per_image="all")})
    errors = measure_errors(oracle(mixture, 1.0), pool, indices, mixture, "grid_mask", num_draws=2, batch_size=4)
    assert len(errors.model) == len(errors.reference) == 10 * 4 * 2
    assert (np.bincount(errors.index)[indices] == 8).all()


def test_errors_do_not_depend_on_the_batch(pool: Pool, oracle) -> None:
    mixture = mixture_of(["grid_mask"])
    model = oracle(mixture, 0.5)
    found = [measure_errors(model, pool, pool.indices("val")[:50], mixture, "grid_mask", batch_size=b) for b in (7, 50)]
    for field in ("model", "untrained", "reference"):
        np.testing.assert_allclose(getattr(found[0], field), getattr(found[1], field), rtol=1e-4)


def test_squared_error_counts_scored_pixels_only() -> None:
    images, repaired = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    scored = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    scored[0, 0, 0, 0] = True
    repaired[0, :, 0, 0] = torch.tensor([0.0, 0.5, 1.0])
    repaired[0, :, 1, 1] = float("nan")
    assert squared_error(repaired, images, scored).tolist() == pytest.approx([1.25 / 3, 0])


def test_the_model_is_left_in_its_mode(pool: Pool, oracle) -> None:
    mixture = mixture_of(["downsample"])
    model = oracle(mixture, 0.0).train()
    measure_errors(model, pool, pool.indices("val")[:5], mixture, "downsample")
    assert model.training
