"""Errors of a network's repairs and of every rule, for each image under each damage.

For each damage, rules are fitted to training images under that damage, and all held-out images are repaired under it.
One of the rules is the network's start, with the weights that it had before training. A pretext without a repair
(rotation, contrast, distil, ...) has a single damage, `all`, whose loss is the mean over its damages weighted by their
shares. Scored separately, a network that always predicts one class would seem to have learned the instances of that
class. A pretext whose damages cannot be listed (a random subset of cells) has `all` too: a drawn damage of each image.
"""
# n images, D damages, B images of a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from vision_mtl.evaluation.features import inference_batch_size
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext, Shape
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

BATCH = 256  # images at a time where no network runs
CHANCE = "chance"  # the rule for a pretext without a repair: the loss of an all-zero prediction
START = "start"  # the rule that is the network before training
Autocast = Callable[[], AbstractContextManager[object]]
Report = Callable[[str], None]  # receives a text about each damage before it is measured


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
        """`predict` before training, under `START`; empty if the start or its head for the pretext is unknown."""
        if self.start is None or part.name not in self.start.head_specs:
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


def damage_names(pretext: Pretext, shape: Shape) -> list[str]:
    """Names of the separately scored damages; `all` alone for a pretext without a repair or with unlisted damages."""
    return pretext.damages(shape) if pretext.repairs and pretext.lists_damages else ["all"]


def scored_shares(pretext: Pretext, shape: Shape) -> np.ndarray:
    """(D,) of sum 1: the probability of each of `damage_names`."""
    names = damage_names(pretext, shape)
    return np.ones(1) if names == ["all"] else pretext.damage_shares(shape).double().numpy()


def measure_damages(
    network: ScoredNetwork,
    name: str,
    indices: Tensor,
    training: FoldImages,
    fold: int,
    report: Report = lambda what: None,
) -> DamageErrors:
    """Return the errors under all damages of pretext `name`, on those of the images `indices` (n,) that suit it.

    The images belong to `fold`; the network was not trained on them, and rules are fitted to the images `training`.
    """
    pool, pretext = network.pool, network.mixture.pretexts[name]
    names = damage_names(pretext, pool.shape)
    indices, training = usable_indices(pool, pretext, indices), training.select(pretext.usable(training.images))
    columns = []
    with network.evaluating():
        for number, damage in enumerate(names):
            report(f"scoring {name} {damage}")
            columns.append(
                _repair_errors(network, name, number, indices, training)
                if pretext.repairs
                else _mean_losses(network, name, indices)
            )
    table = {key: np.stack([column[key] for column in columns], 1) for key in columns[0]}  # (n, D) or (n, D, C)
    fields = {key: table.pop(key) for key in FIELDS}
    source = np.array(pool.sources, object)[first_source(pool, indices)]
    folds = np.full(len(indices), fold)
    shares = scored_shares(pretext, pool.shape)
    return DamageErrors(name, names, shares, indices.numpy(), source, folds, rules=table, **fields)


def model_errors(network: ScoredNetwork, name: str, indices: Tensor) -> np.ndarray:
    """(n, D): the network's errors without those of rules, on the images `indices` that suit the pretext."""
    pretext = network.mixture.pretexts[name]
    indices = usable_indices(network.pool, pretext, indices)
    with network.evaluating():
        if not pretext.repairs:
            found = [_mean_losses(network, name, indices)["model"]]
        else:
            count = len(damage_names(pretext, network.pool.shape))
            found = [_model_repair_errors(network, name, number, indices) for number in range(count)]
    return np.stack(found, 1)


def usable_indices(pool: Pool, pretext: Pretext, indices: Tensor) -> Tensor:
    """Those of the pool's images `indices` (n,) that suit the pretext."""
    keep = [pretext.usable(pool.gather(batch)) for batch in indices.split(BATCH)]
    return indices[torch.cat(keep)] if keep else indices


def one_damage(mixture: Mixture, name: str, number: int, images: Tensor, indices: Tensor) -> tuple[Part, Tensor]:
    """Apply damage `number` of pretext `name` to images (B, C, H, W); return the part and the damaged images.

    Where the pretext's damages cannot be listed, each image gets a drawn one.
    """
    which = torch.full((len(images),), number, device=images.device)
    pretext = mixture.pretexts[name]
    # a fixed single view has no other to be compared with, and a fixed draw would hold one image's features
    drawn = pretext.output in ("embedding", "features") or (pretext.repairs and not pretext.lists_damages)
    return mixture.prepare_all(name, images, Keys(SCORE_SEED, 0, indices.to(images.device)), None if drawn else which)


def mean_by_image(values: Tensor, part: Part, count: int) -> Tensor:
    """(b, ...) values of a part's instances -> (count, ...) means over the instances of each image."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add(0, part.source_rows, values)
    instances = part.source_rows.bincount(minlength=count).clamp(min=1)
    return sums / instances.view(-1, *[1] * (values.ndim - 1))


FIELDS = ("model", "untrained", "classic", "first", "second")
Column = dict[str, np.ndarray]  # `FIELDS`, and the errors of each rule: (n,), moments (n, C)


def _repair_errors(network: ScoredNetwork, name: str, number: int, indices: Tensor, training: FoldImages) -> Column:
    """The column of one damage of a pretext that repairs pixels."""
    rules = _fit_rules(network.mixture, name, number, training)
    found: list[dict[str, Tensor]] = []
    for batch in network.batches(indices):
        part, damaged = one_damage(network.mixture, name, number, network.images(batch), batch)
        pretext, images, draw = part.pretext, part.images, part.draw
        scored = pretext.scored(images, draw)
        untrained = pretext.repair(zero_prediction(pretext, images), damaged, draw)
        source = torch.from_numpy(first_source(network.pool, batch))[part.source_rows.cpu()]
        inputs = [tensor.to(training.images.device) for tensor in (damaged, untrained, source)]
        predictions = {"model": network.predict(part, damaged), **network.predict_start(part, damaged)}
        fixed = pretext.rules(images, draw)
        repairs = {
            **{key: pretext.repair(prediction, damaged, draw) for key, prediction in predictions.items()},
            "untrained": untrained,
            "classic": fixed[pretext.classic] if pretext.classic in fixed else pretext.reference(images, draw),
            **{rule: repaired for rule, repaired in fixed.items() if rule != "classic"},
            **{rule: apply(*inputs).clamp(0, 1).to(images.device) for rule, apply in rules.items()},
        }
        values = {key: squared_error(repaired, images, scored) for key, repaired in repairs.items()}
        values |= dict(zip(("first", "second"), _moments(images, scored), strict=True))
        found.append({key: mean_by_image(value, part, len(batch)) for key, value in values.items()})
    return _concatenated(found)


def _fit_rules(mixture: Mixture, name: str, number: int, training: FoldImages) -> dict[str, Rule]:
    images = training.images
    if len(images) == 0:
        return {}
    part, damaged = one_damage(mixture, name, number, images, torch.arange(len(images)))
    pretext, draw = part.pretext, part.draw
    untrained = pretext.repair(zero_prediction(pretext, part.images), damaged, draw)
    scored = pretext.scored(part.images, draw)
    return fit_rules(training.select(part.source_rows), damaged, untrained, scored, hides=part.mask is not None)


def _model_repair_errors(network: ScoredNetwork, name: str, number: int, indices: Tensor) -> np.ndarray:
    """(n,): the network's error under one damage."""
    found = [np.zeros(0)]
    for batch in network.batches(indices):
        part, damaged = one_damage(network.mixture, name, number, network.images(batch), batch)
        repaired = part.pretext.repair(network.predict(part, damaged), damaged, part.draw)
        errors = squared_error(repaired, part.images, part.pretext.scored(part.images, part.draw))
        found.append(mean_by_image(errors, part, len(batch)).double().cpu().numpy())
    return np.concatenate(found)


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
    return _concatenated(found)


def _moments(images: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) mean and (B, C) mean square of the scored pixels."""
    count = scored.sum((2, 3)).clamp(min=1)
    kept = torch.where(scored, images, 0.0)
    return kept.sum((2, 3)) / count, kept.square().sum((2, 3)) / count


def _concatenated(found: Sequence[dict[str, Tensor]]) -> Column:
    return {key: torch.cat([part[key] for part in found]).double().cpu().numpy() for key in found[0]}
