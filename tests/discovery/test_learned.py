"""`skill_learned` of planted images: what a rule solves, what only learning solves, noise, and rules by source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import fold_images, sample_images
from vision_mtl.discovery.measure import ScoredNetwork, measure_damages
from vision_mtl.discovery.score import sample_clusters, score_pretexts, scored_images
from vision_mtl.discovery.tables import build_tables
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture

COUNT, SIDE = 240, 8
MIXTURE = Mixture({"grid_mask": PRETEXTS.get("grid_mask")(grid="1x2")})


class Knows(nn.Module):
    """Predicts the share `truth` of the target, and `wrong` in addition, for the part that was prepared last."""

    def __init__(self, truth: float, wrong: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.truth, self.wrong = truth, wrong
        self.head_specs, self.part = {"grid_mask": None}, None

    def forward(self, damaged, requests, drop_draw=None):
        (part,) = requests
        return {part.name: [part.pretext.target(part.images, part.draw) * self.truth + self.wrong]}

    def predicts_zero(self, name: str) -> bool:
        return self.truth == self.wrong == 0


def random_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (COUNT, SIDE, SIDE, 3))


def mirrored(seed: int = 0) -> np.ndarray:
    """The right half is 1 minus the left one, which is constant: a linear rule solves it, inpainting does not."""
    left = np.random.default_rng(seed).uniform(0.2, 0.8, (COUNT, 1, 1, 3))
    images = np.broadcast_to(left, (COUNT, SIDE, SIDE, 3)).copy()
    images[:, :, SIDE // 2 :] = 1 - images[:, :, SIDE // 2 :]
    return images


def planted(pool_of, *sources: np.ndarray) -> Pool:
    """A pool with a source for each set of images; half of each is for training, half for testing."""
    of = np.arange(len(sources)).repeat(COUNT)
    pool = pool_of(np.concatenate(sources), member=of[:, None] == np.arange(len(sources)))
    pool.split[1::2] = 2
    return pool


def learned(pool: Pool, model: nn.Module, start: nn.Module | None = None) -> tuple[dict, dict]:
    found = score_pretexts(model, pool, MIXTURE, start=start)
    return found["skill_learned"]["grid_mask"], found["skill"]["grid_mask"]


def test_what_a_rule_solves_is_not_learned_by_a_network_that_matches_it(pool_of) -> None:
    score, classic = learned(planted(pool_of, mirrored()), Knows(0.9))
    assert score["reference"] == "linear" and not score["learned"]
    assert classic["low"] > 0.5  # against the classic repair alone the network would look good


def test_what_no_rule_solves_is_learned(pool_of) -> None:
    score, _ = learned(planted(pool_of, random_images()), Knows(0.3))
    assert score["learned"] and score["low"] > 0.3


def test_noise_is_not_learned(pool_of) -> None:
    score, _ = learned(planted(pool_of, random_images()), Knows(0.0, wrong=0.05))
    assert not score["learned"] and score["value"] < 0


def test_what_the_network_started_with_is_not_learned(pool_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoredNetwork, "evaluating", lambda self: torch.no_grad())  # these models have no backbone
    pool = planted(pool_of, random_images())
    score, _ = learned(pool, Knows(0.3), start=Knows(0.3))
    assert score["reference"] == "start" and score["value"] == 0 and not score["learned"]
    assert learned(pool, Knows(0.5), start=Knows(0.3))[0]["learned"]
    score, _ = learned(pool, Knows(0.0), start=Knows(0.0))
    assert score["reference"] != "start", "a new head is the zero answer, which is not computed twice"


def test_a_rule_for_each_source_leaves_less_to_learn_than_one_for_all(pool_of) -> None:
    """A linear rule solves one source, the mean the other; a network between the two has learned neither."""
    pool = planted(pool_of, mirrored(), random_images())
    training = fold_images(pool, sample_images(pool, pool.indices("train"), COUNT), torch.device("cpu"))
    errors = measure_damages(ScoredNetwork(Knows(0.75), pool, MIXTURE), "grid_mask", pool.indices("test"), training, 0)
    errors.model[errors.source == "planted/a"] = errors.rules["linear"][errors.source == "planted/a"] * 1.1
    errors.model[errors.source == "planted/b"] = errors.rules["mean_colour"][errors.source == "planted/b"] * 1.01
    one_rule = min(values.sum() for values in errors.rules.values())
    found = build_tables(pool, [errors]).metrics()
    assert not found["skill_learned"]["grid_mask"]["learned"]
    assert found["skill_learned"]["grid_mask"]["value"] < 1 - errors.model.sum() / one_rule
    assert set(found["skill_learned"]["grid_mask"]["reference"]) == {"planted/a", "planted/b"}


def test_pretrain_and_discover_give_the_same_score_for_the_same_network(pool_of) -> None:
    pool = planted(pool_of, mirrored(), random_images())
    training = fold_images(pool, sample_images(pool, pool.indices("train"), COUNT), torch.device("cpu"))
    indices = scored_images(pool, "test", MIXTURE.pretexts["grid_mask"])
    network = ScoredNetwork(Knows(0.3), pool, MIXTURE)
    tables = build_tables(pool, [measure_damages(network, "grid_mask", indices, training, 1)]).metrics()
    found = score_pretexts(Knows(0.3), pool, MIXTURE)
    for key in ("skill_learned", "skill_learned_by_source"):
        assert found[key] == tables[key]
    assert {k: tables["skill"]["grid_mask"][k] for k in ("value", "low")} == {
        k: tables["skill_learned"]["grid_mask"][k] for k in ("value", "low")
    }


def test_without_training_images_no_rule_is_fitted(pool_of) -> None:
    pool = planted(pool_of, random_images())
    pool.split[:] = 2
    score, _ = learned(pool, Knows(0.3))
    assert score["learned"] and score["reference"] in ("visible_mean", "inpainting", "untrained")


def test_images_are_examined_by_a_pretext_once(pool_of, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, mask, examined = planted(pool_of, random_images()), type(MIXTURE.pretexts["grid_mask"]), []
    original = mask.usable
    monkeypatch.setattr(mask, "usable", lambda self, images: examined.append(len(images)) or original(self, images))
    learned(pool, Knows(0.3))
    assert sum(examined) == len(scored_images(pool, "test", mask(grid="1x2"))) + COUNT // 2, "scored and training ones"


def test_a_sample_has_an_image_of_every_cluster_before_a_second(pool_of) -> None:
    pool = pool_of(random_images(), cluster=np.minimum(np.arange(COUNT), 20))  # one cluster has most images
    indices = torch.arange(COUNT)
    assert len(np.unique(pool.cluster[sample_clusters(pool, indices, 21).numpy()])) == 21
    chosen = sample_clusters(pool, indices, 30)
    assert len(chosen.unique()) == 30 and torch.equal(sample_clusters(pool, indices, 30), chosen)
    assert torch.equal(sample_clusters(pool, indices, COUNT + 1), indices)


def test_many_damages_are_scored_on_fewer_images(pool_of) -> None:
    pool, mask = pool_of(np.zeros((1200, 12, 12, 3))), PRETEXTS.get("grid_mask")
    counts = {grid: len(scored_images(pool, "train", mask(grid=grid), 500)) for grid in (2, 4, 12)}
    assert counts == {2: 250, 4: 62, 12: 32}
    for pretext in (mask(grid=4, hidden="ratio"), PRETEXTS.get("decolorise")()):
        assert [len(scored_images(pool, "train", pretext, count)) for count in (500, 20)] == [500, 20]


def test_no_image_to_score_gives_no_skill(pool_of) -> None:
    found = score_pretexts(Knows(0.3), planted(pool_of, random_images()), MIXTURE, num_images=0)
    assert found == {"skill_learned": {}, "skill_learned_by_source": {}}
