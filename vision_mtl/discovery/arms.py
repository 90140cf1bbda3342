"""The arms of a bandit over damages: how they are formed, measured on validation images and written as a selection.

An arm is a pretext at one scale (a grid, a factor), or a single damage (a cell) if there are at most `MOST_ARMS`
damages in all. Each arm costs a pass over the measured images at every update, and its progress comes from few draws: a
hundred single cells would cost as much as the training, and their differences would be noise. A pretext without a
repair (classification, contrast) is one arm, since a preference for one of its classes would reveal that class.
"""
# A arms, n images, D damages of all pretexts, one pretext after the other, B images of a batch

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.measure import ScoredNetwork, damage_names, mean_by_image
from vision_mtl.discovery.selection import Selection
from vision_mtl.discovery.skill import SCORE_SEED
from vision_mtl.pretext.contract import Pretext, Shape
from vision_mtl.pretext.preference import Preference, mixture_shares
from vision_mtl.training.repair import zero_prediction

MOST_ARMS = 24  # with more single damages than this, arms are scales


@dataclass(frozen=True)
class BanditArm:
    """Damages of one pretext with a common weight: `numbers` among the pretext's own, `columns` among all D.

    `shares` are their probabilities in the mixture, `damages` their names in a selection.
    """

    pretext: str
    name: str
    numbers: Tensor
    columns: Tensor
    shares: Tensor
    damages: list[str]

    @property
    def share(self) -> float:
        """The probability of the arm in the mixture."""
        return float(self.shares.sum())


def build_arms(pretexts: Mapping[str, Pretext], shape: Shape) -> list[BanditArm]:
    """Return the arms of a mixture, pretext by pretext; each of the D damages is in exactly one."""
    single = sum(len(damage_names(pretext, shape)) for pretext in pretexts.values()) <= MOST_ARMS
    shares = mixture_shares(pretexts, shape)
    found, start = [], 0
    for pretext_name, pretext in pretexts.items():
        names = pretext.damages(shape)
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            arm = "all" if not pretext.repairs else name if single else name.partition("/")[0]
            groups.setdefault(arm, []).append(number)
        for arm, members in groups.items():
            numbers = torch.tensor(members)
            damages = [names[number] for number in members] if pretext.repairs else ["all"]
            found.append(BanditArm(pretext_name, arm, numbers, start + numbers, shares[start + numbers], damages))
        start += len(names)
    return found


def prefer_arms(arms: Sequence[BanditArm], weights: np.ndarray, num_images: int) -> Preference:
    """Return the preference of all images of the pool for each arm by its weight (A,)."""
    table = torch.ones(1, sum(len(arm.columns) for arm in arms))
    for arm, weight in zip(arms, weights.tolist(), strict=True):
        table[0, arm.columns] = weight
    return Preference(table, torch.zeros(num_images, dtype=torch.int64))


def arm_losses(
    network: ScoredNetwork, arms: Sequence[BanditArm], indices: Tensor, untrained: bool = False
) -> np.ndarray:
    """(A, n) losses on the images `indices`, NaN where an image does not suit the arm's pretext.

    With `untrained` they are the chance losses of an all-zero prediction. Each image has one damage of each arm, drawn
    with the mixture's probabilities and the same at every call, so that two measurements differ only by the learning
    between them.
    """
    training = network.model.training
    network.model.eval()
    found = [np.concatenate([_losses(network, arm, b, untrained) for b in network.batches(indices)]) for arm in arms]
    network.model.train(training)
    return np.stack(found)


def select_arms(
    pool: Pool, arms: Sequence[BanditArm], weights: np.ndarray, skill: np.ndarray, about: Mapping[str, Any]
) -> Selection:
    """Return a selection with a row for each source under each damage; the largest weight is 1.

    `weights` and `skill` (A,) are those of the arms. Single images have no rows, since none was measured on its own.
    """
    rows = [
        (source, arm.pretext, damage, weight, own)
        for source in pool.sources
        for arm, weight, own in zip(arms, (weights / weights.max()).tolist(), skill.tolist(), strict=True)
        for damage in arm.damages
    ]
    source, pretext, damage, weight, own = zip(*rows, strict=True)
    columns = {
        "source": np.array(source, object),
        "identity": np.full(len(rows), "", object),
        "index": np.full(len(rows), -1),
        "pretext": np.array(pretext, object),
        "damage": np.array(damage, object),
        "skill": np.array(own),
        "weight": np.array(weight, np.float32),
    }
    return Selection(columns, {**about, "rule": "online"})


def _losses(network: ScoredNetwork, arm: BanditArm, batch: Tensor, untrained: bool) -> np.ndarray:
    images = network.images(batch)
    pretext = network.mixture.pretexts[arm.pretext]
    keys = Keys(SCORE_SEED, 0, batch.to(images.device))
    which = None  # a pretext without a repair draws its own damage
    if pretext.repairs:
        which = arm.numbers.to(images.device)[keys.fold(f"arm/{arm.name}").choice(arm.shares)]
    part, damaged = network.mixture.prepare_all(arm.pretext, images, keys, which)
    prediction = zero_prediction(pretext, part.images) if untrained else network.predict(part, damaged)
    loss = mean_by_image(pretext.loss(prediction, part.images, part.draw), part, len(images)).double()
    return torch.where(pretext.usable(images), loss, torch.nan).cpu().numpy()
