"""Errors of a network's repairs and of every rule, for each image under each damage.

For each damage, rules are fitted to training images under that damage, and all held-out images are repaired under it.
One of the rules is the network's start, with the weights that it had before training, unless its head was new, which
predicts about zero. A pretext without a repair
(rotation, contrast, distil, ...) has a single damage, `all`, whose loss is the mean over its damages weighted by their
shares. Scored separately, a network that always predicts one class would seem to have learned the instances of that
class. A pretext whose damages cannot be listed (a random subset of cells) has `all` too: a drawn damage of each image.
"""
# n images, D damages, B images of a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import first_source
from vision_mtl.discovery.rule_errors import (
    Column,
    Report,
    cached_rule_errors,
    concatenated,
    damage_names,
    mean_by_image,
    one_damage,
    scored_shares,
    stacked,
    usable_indices,
)
from vision_mtl.discovery.rules import FoldImages
from vision_mtl.discovery.skill import predict_part, squared_error
from vision_mtl.evaluation.features import inference_batch_size
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext, Shape
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

CHANCE = "chance"  # the rule for a pretext without a repair: the loss of an all-zero prediction
START = "start"  # the rule that is the network before training
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class ScoredNetwork:
    """A network with the pool and the mixture that its repairs are measured on.

    `start` is the same network before training, if it is known.
    """

    model: SharedModel
    pool: Pool
    mixture: Mixture
    autocast: Autocast = nullcontext
    start: SharedModel | None = None

    def images(self, indices: Tensor) -> Tensor:
        """(B, C, H, W): the images `indices` (B,) on the network's device."""
        return self.pool.gather(indices).to(self.device)

    def batches(self, indices: Tensor) -> Sequence[Tensor]:
        """The images `indices` (n,) in batches that suit the device."""
        return indices.split(inference_batch_size(self.device))

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next(self.model.parameters()).device

    def predict(self, part: Part, damaged: Tensor) -> Tensor:
        """The first readout's prediction (B, K, H, W) or (B, K) float32 for images (B, C, H, W), without gradients."""
        return predict_part(self.model, part, damaged, self.autocast)

    def predict_start(self, part: Part, damaged: Tensor) -> dict[str, Tensor]:
        """`predict` before training, under `START`; empty if the start or its head for the pretext is unknown or new.

        A new head predicts about zero, and the zero answer is a rule already.
        """
        if self.start is None or part.name not in self.start.head_specs or self.start.predicts_zero(part.name):
            return {}
        return {START: predict_part(self.start, part, damaged, self.autocast)}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set the networks to evaluation; the start also gets the model's band statistics and its device."""
        training = self.model.training
        self.model.eval()
        if self.start is not None:
            backbone = self.model.backbone
            self.start.to(self.device).eval().backbone.set_statistics(backbone.mean.flatten(), backbone.std.flatten())
        yield
        self.model.train(training)


@dataclass(frozen=True)
class DamageErrors:
    """Errors (n, D) of one pretext: the mean squared error over the scored pixels, or a loss.

    `shares` (D,) are the probabilities of the damages, `index` (n,) the images in the pool, `source` (n,) the names of
    their first sources, `fold` (n,) their folds, 0 or 1. `untrained` are the errors of an all-zero prediction,
    `classic` those of the classic repair. `first`, `second` (n, D, C) are the target's means and mean squares over the
    scored pixels.
    """

    pretext: str
    damages: list[str]
    shares: np.ndarray
    index: np.ndarray
    source: np.ndarray
    fold: np.ndarray
    model: np.ndarray
    untrained: np.ndarray
    classic: np.ndarray
    rules: dict[str, np.ndarray]
    first: np.ndarray
    second: np.ndarray

    @property
    def scales(self) -> list[str]:
        """The scale of each damage: its name up to the slash."""
        return [name.partition("/")[0] for name in self.damages]

    def joined(self, other: DamageErrors) -> DamageErrors:
        """Return the errors of the images of both."""
        names = ("index", "source", "fold", *FIELDS)
        parts: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        rules = {k: np.concatenate([v, other.rules[k]]) for k, v in self.rules.items() if k in other.rules}
        return replace(self, **parts, rules=rules)


def measure_damages(
    network: ScoredNetwork,
    name: str,
    indices: Tensor,
    training: FoldImages,
    fold: int,
    report: Report = lambda what: None,
    cache: Path | None = None,
) -> DamageErrors:
    """Return the errors under all damages of pretext `name`, on the images `indices` (n,), one or more that suit it.

    The images belong to `fold`; the network was not trained on them, and rules are fitted to the images `training`.
    `report` is called `num_reports` times. Errors without a network are kept in the folder `cache`.
    """
    pool, pretext = network.pool, network.mixture.pretexts[name]
    if len(training.images):  # some pretexts cannot examine an empty batch
        training = training.select(pretext.usable(training.images))
    with network.evaluating():
        if pretext.repairs:
            table = cached_rule_errors(network.mixture, name, pool, indices, training, network.device, report, cache)
            table = table | _repair_errors(network, name, indices, report)
        else:
            report(name)
            table = {key: values[:, None] for key, values in _mean_losses(network, name, indices).items()}
    fields = {key: table.pop(key) for key in FIELDS}
    source = np.array(pool.sources, object)[first_source(pool, indices)]
    folds = np.full(len(indices), fold)
    names, shares = damage_names(pretext, pool.shape), scored_shares(pretext, pool.shape)
    return DamageErrors(name, names, shares, indices.numpy(), source, folds, rules=table, **fields)


def num_reports(pretext: Pretext, shape: Shape) -> int:
    """Return how often `measure_damages` reports on a pretext: once for the rules and once for the network a damage."""
    return 2 * len(damage_names(pretext, shape)) if pretext.repairs else 1


def model_errors(network: ScoredNetwork, name: str, indices: Tensor) -> np.ndarray:
    """(n, D): the network's errors without those of rules, on the images `indices` that suit the pretext."""
    pretext = network.mixture.pretexts[name]
    indices = usable_indices(network.pool, pretext, indices)
    if len(indices) == 0:
        return np.zeros((0, len(damage_names(pretext, network.pool.shape))))
    alone = replace(network, start=None)
    with alone.evaluating():
        if pretext.repairs:
            return _repair_errors(alone, name, indices, lambda what: None)["model"]
        return _mean_losses(alone, name, indices)["model"][:, None]


FIELDS = ("model", "untrained", "classic", "first", "second")


def _repair_errors(network: ScoredNetwork, name: str, indices: Tensor, report: Report) -> Column:
    """(n, D): the errors of the network and of its start under every damage of a pretext that repairs pixels."""
    columns = []
    for number, damage in enumerate(damage_names(network.mixture.pretexts[name], network.pool.shape)):
        report(f"{name} {damage}")
        found = []
        for batch in network.batches(indices):
            part, damaged = one_damage(network.mixture, name, number, network.images(batch), batch)
            scored = part.pretext.scored(part.images, part.draw)
            predictions = {"model": network.predict(part, damaged), **network.predict_start(part, damaged)}
            repairs = {key: part.pretext.repair(value, damaged, part.draw) for key, value in predictions.items()}
            values = {key: squared_error(repaired, part.images, scored) for key, repaired in repairs.items()}
            found.append({key: mean_by_image(value, part, len(batch)) for key, value in values.items()})
        columns.append(concatenated(found))
    return stacked(columns)


def _mean_losses(network: ScoredNetwork, name: str, indices: Tensor) -> Column:
    """The column of a pretext without a repair: its losses, averaged over all damages by their shares."""
    pretext, found = network.mixture.pretexts[name], []
    shares = pretext.damage_shares(network.pool.shape).tolist()
    for batch in network.batches(indices):
        images = network.images(batch)
        sums: dict[str, Tensor] = {}
        for number, share in enumerate(shares):
            part, damaged = one_damage(network.mixture, name, number, images, batch)
            predictions = {
                "model": network.predict(part, damaged),
                CHANCE: zero_prediction(pretext, part.images),
                **network.predict_start(part, damaged),
            }
            for key, prediction in predictions.items():
                loss = mean_by_image(pretext.loss(prediction, part.images, part.draw), part, len(images))
                sums[key] = sums.get(key, 0) + share * loss
        sums["untrained"] = sums["classic"] = sums[CHANCE]
        moments = images.new_zeros(len(images), images.shape[1])  # there is no target image
        found.append(sums | {"first": moments, "second": moments})
    return concatenated(found)
