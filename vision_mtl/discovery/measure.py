"""Errors of a network's repairs and of every rule, for each image under each damage.

Damage by damage: rules are fitted to the fold's training images under that damage, then all held-out images are
repaired under it. A question (rotation, neighbour, contrast) is one damage, `all`: its answers' losses are averaged
by their shares, or a network that always gives one answer would look learned on that answer's instances.
"""
# n images, D damages, B images of a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import first_source
from vision_mtl.discovery.rules import FoldImages, Rule, fit_rules
from vision_mtl.discovery.skill import SCORE_SEED, predict_part, squared_error
from vision_mtl.evaluation.features import images_a_pass
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext, Shape
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

LOOKED_AT = 256  # images at a time where no network is asked
CHANCE = "chance"  # the only rule of a question
Autocast = Callable[[], AbstractContextManager[object]]
Seen = Callable[[str], None]  # told of each damage before it is measured


@dataclass(frozen=True)
class ScoredNetwork:
    """A network, and what its repairs are measured on."""

    model: SharedModel
    pool: Pool
    mixture: Mixture
    autocast: Autocast = nullcontext

    def images(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) on the network's device."""
        return self.pool.gather(indices).to(self.device)

    def batches(self, indices: Tensor) -> Sequence[Tensor]:
        """The images `indices` (n,), as many at a time as the device can well hold."""
        return indices.split(images_a_pass(self.device))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def predict(self, part: Part, damaged: Tensor) -> Tensor:
        """The first readout's answer, (B, K, H, W) or (B, K) float32, to images (B, C, H, W), without a gradient."""
        return predict_part(self.model, part, damaged, self.autocast)


@dataclass(frozen=True)
class DamageErrors:
    """One pretext's errors: (n, D) each, mean squared error over the scored pixels, or a loss.

    `shares` (D,) is how often each damage is drawn, `index` (n,) the images in the pool, `fold` (n,) 0 or 1: the fold
    that an image is in. `first`, `second` (n, D, C) are the target's means and mean squares over the scored pixels.
    """

    pretext: str
    damages: list[str]
    shares: np.ndarray
    index: np.ndarray
    fold: np.ndarray
    model: np.ndarray
    untrained: np.ndarray
    rules: dict[str, np.ndarray]
    first: np.ndarray
    second: np.ndarray

    @property
    def scales(self) -> list[str]:
        """Each damage's scale: what its name says before the slash."""
        return [name.partition("/")[0] for name in self.damages]

    def joined(self, other: DamageErrors) -> DamageErrors:
        """The images of both."""
        names = ("index", "fold", "model", "untrained", "first", "second")
        parts: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        rules = {k: np.concatenate([v, other.rules[k]]) for k, v in self.rules.items() if k in other.rules}
        return replace(self, **parts, rules=rules)


def damage_names(pretext: Pretext, shape: Shape) -> list[str]:
    """What is scored apart: the pretext's damages, or the one name of a question."""
    return pretext.damages(shape) if pretext.repairs else ["all"]


def scored_shares(pretext: Pretext, shape: Shape) -> np.ndarray:
    """(D,) of sum 1: how often each of `damage_names` is drawn."""
    return pretext.damage_shares(shape).double().numpy() if pretext.repairs else np.ones(1)


def measure_damages(
    judged: ScoredNetwork,
    name: str,
    indices: Tensor,
    training: FoldImages,
    fold: int,
    seen: Seen = lambda what: None,
) -> DamageErrors:
    """Pretext `name` under all its damages, on those of the images `indices` (n,) that suit it.

    The images are of `fold`; the network and the rules, fitted here to `training`, have seen the other.
    """
    pool, pretext = judged.pool, judged.mixture.pretexts[name]
    names = damage_names(pretext, pool.shape)
    indices, training = suited(pool, pretext, indices), training.select(pretext.usable(training.images))
    columns = []
    judged.model.eval()
    for number, damage in enumerate(names):
        seen(f"scoring {name} {damage}")
        columns.append(
            _damage(judged, name, number, indices, training) if pretext.repairs else _question(judged, name, indices)
        )
    table = {key: np.stack([column[key] for column in columns], 1) for key in columns[0]}  # (n, D) or (n, D, C)
    fields = {key: table.pop(key) for key in FIELDS}
    folds = np.full(len(indices), fold)
    return DamageErrors(name, names, scored_shares(pretext, pool.shape), indices.numpy(), folds, rules=table, **fields)


def model_errors(judged: ScoredNetwork, name: str, indices: Tensor) -> np.ndarray:
    """(n, D): the network's errors alone, on the images `indices` that suit the pretext; quick, for use on the way."""
    pretext = judged.mixture.pretexts[name]
    indices = suited(judged.pool, pretext, indices)
    training = judged.model.training
    judged.model.eval()
    if not pretext.repairs:
        found = [_question(judged, name, indices)["model"]]
    else:
        count = len(damage_names(pretext, judged.pool.shape))
        found = [_repaired(judged, name, number, indices) for number in range(count)]
    judged.model.train(training)
    return np.stack(found, 1)


def suited(pool: Pool, pretext: Pretext, indices: Tensor) -> Tensor:
    """Those of the pool's images `indices` (n,) that the pretext can be scored on."""
    keep = [pretext.usable(pool.gather(batch)) for batch in indices.split(LOOKED_AT)]
    return indices[torch.cat(keep)] if keep else indices


def one_damage(mixture: Mixture, name: str, number: int, images: Tensor, indices: Tensor) -> tuple[Part, Tensor]:
    """Damage number `number` of pretext `name` on images (B, C, H, W): the part, and the damaged images."""
    which = torch.full((len(images),), number, device=images.device)
    drawn = mixture.pretexts[name].output == "embedding"  # one view of an image has nothing to be compared with
    return mixture.prepare_all(name, images, Keys(SCORE_SEED, 0, indices.to(images.device)), None if drawn else which)


def mean_by_image(values: Tensor, part: Part, count: int) -> Tensor:
    """(b,) of a part's instances -> (count,): the mean of each image's."""
    sums = values.new_zeros(count).index_add(0, part.source_rows, values)
    return sums / part.source_rows.bincount(minlength=count).clamp(min=1)


FIELDS = ("model", "untrained", "first", "second")
Column = dict[str, np.ndarray]  # the fields, and a rule's errors by its name: (n,), moments (n, C)


def _damage(judged: ScoredNetwork, name: str, number: int, indices: Tensor, training: FoldImages) -> Column:
    rules = _fitted(judged.mixture, name, number, training)
    found: list[dict[str, Tensor]] = []
    for batch in judged.batches(indices):
        images = judged.images(batch)
        part, damaged = one_damage(judged.mixture, name, number, images, batch)
        pretext, draw = part.pretext, part.draw
        scored = pretext.scored(images, draw)
        untrained = pretext.repair(zero_prediction(pretext, images), damaged, draw)
        source = torch.from_numpy(first_source(judged.pool, batch))
        seen = [tensor.to(training.images.device) for tensor in (damaged, untrained, source)]
        repairs = {
            "model": pretext.repair(judged.predict(part, damaged), damaged, draw),
            "untrained": untrained,
            **pretext.rules(images, draw),
            **{rule: apply(*seen).clamp(0, 1).to(images.device) for rule, apply in rules.items()},
        }
        errors = {key: squared_error(repaired, images, scored) for key, repaired in repairs.items()}
        found.append(errors | dict(zip(("first", "second"), _moments(images, scored), strict=True)))
    return _collected(found)


def _fitted(mixture: Mixture, name: str, number: int, training: FoldImages) -> dict[str, Rule]:
    images = training.images
    if len(images) == 0:
        return {}
    part, damaged = one_damage(mixture, name, number, images, torch.arange(len(images)))
    pretext, draw = part.pretext, part.draw
    untrained = pretext.repair(zero_prediction(pretext, images), damaged, draw)
    scored = pretext.scored(images[:1], {key: value[:1] for key, value in draw.items()})
    return fit_rules(training, damaged, untrained, scored, hides=part.mask is not None)


def _repaired(judged: ScoredNetwork, name: str, number: int, indices: Tensor) -> np.ndarray:
    """(n,): the network's error under one damage."""
    found = [np.zeros(0)]
    for batch in judged.batches(indices):
        images = judged.images(batch)
        part, damaged = one_damage(judged.mixture, name, number, images, batch)
        repaired = part.pretext.repair(judged.predict(part, damaged), damaged, part.draw)
        found.append(squared_error(repaired, images, part.pretext.scored(images, part.draw)).double().cpu().numpy())
    return np.concatenate(found)


def _question(judged: ScoredNetwork, name: str, indices: Tensor) -> Column:
    """Losses averaged over all answers by their shares."""
    pretext, found = judged.mixture.pretexts[name], []
    shares = pretext.damage_shares(judged.pool.shape).tolist()
    for batch in judged.batches(indices):
        images = judged.images(batch)
        sums = {key: images.new_zeros(len(images)) for key in ("model", CHANCE)}
        for number, share in enumerate(shares):
            part, damaged = one_damage(judged.mixture, name, number, images, batch)
            answers = {"model": judged.predict(part, damaged), CHANCE: zero_prediction(pretext, part.images)}
            for key, answer in answers.items():
                loss = mean_by_image(pretext.loss(answer, part.images, part.draw), part, len(images))
                sums[key] = sums[key] + share * loss
        sums["untrained"] = sums[CHANCE]
        nothing = images.new_zeros(len(images), images.shape[1])  # a question has no target of pixels
        found.append(sums | {"first": nothing, "second": nothing})
    return _collected(found)


def _moments(images: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) twice: the scored pixels' mean and mean square."""
    count = scored.sum((2, 3)).clamp(min=1)
    kept = torch.where(scored, images, 0.0)
    return kept.sum((2, 3)) / count, kept.square().sum((2, 3)) / count


def _collected(found: Sequence[dict[str, Tensor]]) -> Column:
    return {key: torch.cat([part[key] for part in found]).double().cpu().numpy() for key in found[0]}
