"""Arms: which damages are drawn together, what is measured of them, and a selection that pretraining takes."""

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


class Silent(torch.nn.Module):
    """Predicts nothing, as a network before its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, damaged, requests, chance=None):
        return {r.name: [zero_prediction(PRETEXT[r.name], damaged[r.rows]) + self.bias] for r in requests}


def test_few_damages_are_arms_each_and_a_question_is_one() -> None:
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


def test_arms_are_drawn_as_often_as_their_weights_say() -> None:
    arms = build_arms(PRETEXT, SHAPE)
    weights = np.full(15, 0.2)
    weights[2] = (1 - 0.2 * (1 - arms[2].share)) / arms[2].share  # the mean by share is 1
    mixture = Mixture(PRETEXT, prefer_arms(arms, weights, 40))
    keys = Keys(0, torch.arange(4000), torch.arange(4000) % 40)
    drawn = mixture.preference.draw(keys, mixture_shares(PRETEXT, SHAPE), torch.ones(4000, 18, dtype=torch.bool))
    share = drawn.bincount(minlength=18) / 4000
    assert float(share[2]) == pytest.approx(weights[2] * arms[2].share, abs=0.03)
    assert float(share[14:].sum()) == pytest.approx(0.2 * 0.25, abs=0.015)


def test_untrained_losses_are_those_of_a_silent_network_and_always_the_same(pool) -> None:
    arms, indices = build_arms(PRETEXT, SHAPE), torch.arange(5, 40, 2)
    judged = ScoredNetwork(Silent(), pool, Mixture(PRETEXT))
    silent, untrained = arm_losses(judged, arms, indices), arm_losses(judged, arms, indices, untrained=True)
    assert silent.shape == (15, 18)
    np.testing.assert_allclose(silent, untrained)
    np.testing.assert_array_equal(silent, arm_losses(judged, arms, indices))
    one = arm_losses(judged, arms, indices[7:8])  # an image's damage does not depend on the others
    np.testing.assert_allclose(one[:, 0], silent[:, 7], rtol=1e-6)
    grey = [k for k, arm in enumerate(arms) if arm.pretext == "decolorise"]
    assert np.isnan(silent[grey, :3]).all() and np.isfinite(silent[grey, 3:]).all()
    np.testing.assert_allclose(silent[-1], np.log(4), rtol=1e-6)
    judged.model.bias.data.fill_(0.3)
    cell = next(k for k, arm in enumerate(arms) if arm.name == "2x2/r0c0")
    assert not np.allclose(arm_losses(judged, arms, indices)[cell], silent[cell])


def test_a_selection_of_arms_is_one_that_pretraining_takes(pool) -> None:
    arms = build_arms(PRETEXT, SHAPE)
    weights = np.linspace(0.2, 2, 15)
    about = {"image_size": [12, 12, 3], "sources": pool.sources, "pretexts": OPTIONS}
    selection = select_arms(pool, arms, weights, np.zeros(15), about)
    assert len(selection.columns["weight"]) == 2 * 15 and selection.columns["weight"].max() == 1
    preference = prefer(selection, pool, PRETEXT, OPTIONS)
    wanted = prefer_arms(arms, weights / 2, len(pool)).table[0]
    torch.testing.assert_close(preference.table[preference.row], wanted.expand(40, -1))
