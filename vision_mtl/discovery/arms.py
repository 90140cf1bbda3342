"""The arms of a bandit over damages: what is drawn apart, measured on validation images, and said in a selection.

An arm is a pretext at one scale (a grid, a factor), or a single damage (a cell) where there are at most `MOST_ARMS` of
these in all. Each arm costs a pass over the measured images at every update, and its progress is that of few draws: a
hundred cells would cost as much as the training and be told apart by noise. A question is one arm: a preferred answer
would give it away.
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

MOST_ARMS = 24  # single damages: more than these are drawn by scale


@dataclass(frozen=True)
class BanditArm:
    """Damages of one pretext that are drawn alike: `numbers` among the pretext's own, `columns` among all D.

    `shares` are how often the mixture draws each, `damages` their names in a selection.
    """

    pretext: str
    name: str
    numbers: Tensor
    columns: Tensor
    shares: Tensor
    damages: list[str]

    @property
    def share(self) -> float:
        """How often the mixture draws the arm."""
        return float(self.shares.sum())


def build_arms(pretexts: Mapping[str, Pretext], shape: Shape) -> list[BanditArm]:
    """The arms of a mixture, pretext by pretext; each of the D damages is in one of them."""
    single = sum(len(damage_names(pretext, shape)) for pretext in pretexts.values()) <= MOST_ARMS
    shares = mixture_shares(pretexts, shape)
    found, start = [], 0
    for pretext, it in pretexts.items():
        names = it.damages(shape)
        is_question = not it.repairs
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            arm = "all" if is_question else name if single else name.partition("/")[0]
            groups.setdefault(arm, []).append(number)
        for arm, members in groups.items():
            numbers = torch.tensor(members)
            damages = ["all"] if is_question else [names[number] for number in members]
            found.append(BanditArm(pretext, arm, numbers, start + numbers, shares[start + numbers], damages))
        start += len(names)
    return found


def prefer_arms(arms: Sequence[BanditArm], weights: np.ndarray, num_images: int) -> Preference:
    """Every one of the pool's images prefers each arm by its weight (A,)."""
    table = torch.ones(1, sum(len(arm.columns) for arm in arms))
    for arm, weight in zip(arms, weights.tolist(), strict=True):
        table[0, arm.columns] = weight
    return Preference(table, torch.zeros(num_images, dtype=torch.int64))


def arm_losses(
    judged: ScoredNetwork, arms: Sequence[BanditArm], indices: Tensor, untrained: bool = False
) -> np.ndarray:
    """(A, n) losses on the images `indices`, or those of an `untrained` prediction; NaN where an image does not suit.

    Each image has one damage of each arm, drawn as often as the mixture draws it and the same at every call, so that
    two measurements differ by what the network has learned between them and by nothing else.
    """
    training = judged.model.training
    judged.model.eval()
    found = [np.concatenate([_losses(judged, arm, b, untrained) for b in judged.batches(indices)]) for arm in arms]
    judged.model.train(training)
    return np.stack(found)


def select_arms(
    pool: Pool, arms: Sequence[BanditArm], weights: np.ndarray, skill: np.ndarray, about: Mapping[str, Any]
) -> Selection:
    """A row for each source under each damage with its arm's weight, the largest 1; none for a single image, as
    nothing was measured of one. `weights` and `skill` are (A,), a number an arm."""
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


def _losses(judged: ScoredNetwork, arm: BanditArm, batch: Tensor, untrained: bool) -> np.ndarray:
    images = judged.images(batch)
    pretext = judged.mixture.pretexts[arm.pretext]
    keys = Keys(SCORE_SEED, 0, batch.to(images.device))
    which = None  # a question draws its answer itself
    if pretext.repairs:
        which = arm.numbers.to(images.device)[keys.fold(f"arm/{arm.name}").choice(arm.shares)]
    part, damaged = judged.mixture.prepare_all(arm.pretext, images, keys, which)
    prediction = zero_prediction(pretext, part.images) if untrained else judged.predict(part, damaged)
    loss = mean_by_image(pretext.loss(prediction, part.images, part.draw), part, len(images)).double()
    return torch.where(pretext.usable(images), loss, torch.nan).cpu().numpy()
