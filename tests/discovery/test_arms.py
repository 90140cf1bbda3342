"""Bandit arms: their damages, their losses, and their selection for pretraining."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.discovery.arms import MOST_ARMS, arm_losses, build_arms, prefer_arms, select_arms
from vision_mtl.discovery.measure import ScoredNetwork
from vision_mtl.discovery.preferring import prefer
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.preference import mixture_shares
from vision_mtl.training.repair import zero_prediction

SHAPE = (3, 12, 12)
OPTIONS = {
    "grid_mask": {"grid": [2, 3], "weight": 2.0},
    "decolorise": {"weight": 1.0},
    "rotation": {"weight": 1.0},
}
PRETEXT = {name: PRETEXTS.get(name)(**options) for name, options in OPTIONS.items()}  # 4 + 9, 1 and 4 damages


@pytest.fixture
def pool(pool_of):
    images = np.random.default_rng(0).random((40, 12, 12, 3))
    images[:10] = images[:10].mean(-1, keepdims=True)  # grey: no colour to predict
    member = np.stack([np.arange(40) < 30, np.arange(40) >= 30], 1)
    return pool_of(images, member=member)


class ZeroModel(torch.nn.Module):
    """Predicts zeros, as a network does before its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, damaged, requests, drop_draw=None):
        return {r.name: [zero_prediction(PRETEXT[r.name], damaged[r.rows]) + self.bias] for r in requests}


def test_few_damages_are_single_arms_and_a_classification_pretext_is_one_arm() -> None:
    arms = build_arms(PRETEXT, SHAPE)
    assert len(arms) == 4 + 9 + 1 + 1 <= MOST_ARMS
    assert [arm.name for arm in arms][3:5] == ["2x2/r1c1", "3x3/r0c0"]
    assert sum(arm.share for arm in arms) == pytest.approx(1)
    assert arms[-1].name == "all" and arms[-1].columns.tolist() == [14, 15, 16, 17]
    assert arms[-1].damages == ["all"] and arms[0].share == pytest.approx(0.5 / 2 / 4)


def test_many_damages_are_arms_by_scale() -> None:
    grids = {"grid_mask": PRETEXTS.get("grid_mask")(grid=[2, 3, 4])}
    arms = build_arms(grids, SHAPE)
    assert [(arm.name, len(arm.damages)) for arm in arms] == [("2x2", 4), ("3x3", 9), ("4x4", 16)]
    assert [arm.share for arm in arms] == pytest.approx([1 / 3] * 3)
    assert torch.equal(torch.cat([arm.columns for arm in arms]), torch.arange(29))


def test_arms_are_drawn_by_their_weights() -> None:
    arms = build_arms(PRETEXT, SHAPE)
    weights = np.full(15, 0.2)
    weights[2] = (1 - 0.2 * (1 - arms[2].share)) / arms[2].share  # the mean by share is 1
    mixture = Mixture(PRETEXT, prefer_arms(arms, weights, 40))
    keys = Keys(0, torch.arange(4000), torch.arange(4000) % 40)
    drawn = mixture.preference.draw(keys, mixture_shares(PRETEXT, SHAPE), torch.ones(4000, 18, dtype=torch.bool))
    share = drawn.bincount(minlength=18) / 4000
    assert float(share[2]) == pytest.approx(weights[2] * arms[2].share, abs=0.03)
    assert float(share[14:].sum()) == pytest.approx(0.2 * 0.25, abs=0.015)


def test_untrained_losses_are_those_of_a_zero_model_and_reproducible(pool) -> None:
    arms, indices = build_arms(PRETEXT, SHAPE), torch.arange(5, 40, 2)
    network = ScoredNetwork(ZeroModel(), pool, Mixture(PRETEXT))
    zero, untrained = arm_losses(network, arms, indices), arm_losses(network, arms, indices, untrained=True)
    assert zero.shape == (15, 18)
    np.testing.assert_allclose(zero, untrained)
    np.testing.assert_array_equal(zero, arm_losses(network, arms, indices))
    one = arm_losses(network, arms, indices[7:8])  # an image's damage does not depend on the others
    np.testing.assert_allclose(one[:, 0], zero[:, 7], rtol=1e-6)
    grey = [k for k, arm in enumerate(arms) if arm.pretext == "decolorise"]
    assert np.isnan(zero[grey, :3]).all() and np.isfinite(zero[grey, 3:]).all()
    np.testing.assert_allclose(zero[-1], np.log(4), rtol=1e-6)
    network.model.bias.data.fill_(0.3)
    cell = next(k for k, arm in enumerate(arms) if arm.name == "2x2/r0c0")
    assert not np.allclose(arm_losses(network, arms, indices)[cell], zero[cell])


def test_a_selection_of_arms_works_as_a_preference(pool) -> None:
    arms = build_arms(PRETEXT, SHAPE)
    weights = np.linspace(0.2, 2, 15)
    about = {"image_size": [12, 12, 3], "sources": pool.sources, "pretexts": OPTIONS}
    selection = select_arms(pool, arms, weights, np.zeros(15), about)
    assert len(selection.columns["weight"]) == 2 * 15 and selection.columns["weight"].max() == 1
    preference = prefer(selection, pool, PRETEXT, OPTIONS)
    wanted = prefer_arms(arms, weights / 2, len(pool)).table[0]
    torch.testing.assert_close(preference.table[preference.row], wanted.expand(40, -1))
