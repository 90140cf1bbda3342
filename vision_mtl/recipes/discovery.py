"""Fit a network to each fold and score it on the other: the parts of discovery by cross-fitting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.learning_curve import errors_by_scale
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, damage_names, measure_damages, suited
from vision_mtl.discovery.selection import check_ratio
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.pretext.contract import Pretext
from vision_mtl.recipes import build
from vision_mtl.recipes.discovery_online import check_one_cell
from vision_mtl.recipes.fit import fit, resume
from vision_mtl.recipes.repair import CHANCE_IMAGES
from vision_mtl.training.loop import Trainer
from vision_mtl.training.progress import ProgressLine
from vision_mtl.training.step_record import Progress
from vision_mtl.training.tracking import Tracker

FEW = 6  # images of each source and fold that skill is measured on during training


def check_discovery(config: RunConfig, num_images: int, top_ratio: float) -> None:
    """Raise `UserError` for what cross-fitting cannot use, and for options out of range, before any work is done."""
    if config.init_from:
        raise UserError(
            f"discover fits its own networks, as images seen before cannot be scored; leave out --init_from "
            f"{config.init_from} (--backbone.pretrained starts from timm's weights)."
        )
    if num_images < 4:
        raise UserError(f"discover.num_images must be 4 or more; found {num_images}.")
    check_ratio(top_ratio)
    check_one_cell(config)


def skill_records(part: Run) -> list[dict[str, Any]]:
    """What was measured while a fold's network was trained."""
    return [record for record in part.records() if record.get("kind") == "skill"]


def images_to_use(config: RunConfig, pool: Pool) -> Tensor:
    """(n,) training and validation images, and test images only if the config says so."""
    sides = ["train", "val"] + (["test"] if config.data.include_test else [])
    return torch.cat([pool.indices(side) for side in sides]).sort().values


def suited_pretexts(
    run: Run, pool: Pool, pretexts: dict[str, Pretext], samples: Sequence[Tensor]
) -> dict[str, Pretext]:
    """The pretexts that some image of each of `samples`, (n,) each, suits; the others are left out, and said.

    Raises `UserError` if none is left.
    """
    looked_at = [spread_evenly(indices, CHANCE_IMAGES) for indices in samples]  # as many as chance is measured on
    kept = {n: p for n, p in pretexts.items() if all(len(suited(pool, p, indices)) for indices in looked_at)}
    for name in pretexts.keys() - kept.keys():
        run.warn(f"pretext {name} is left out: no image of one of the folds suits it.")
    if not kept:
        raise UserError("discover has no damage to measure: no pretext suits these images, or all weights are 0.")
    return kept


def fit_fold(config: RunConfig, part: Run, pool: Pool, trainer: Trainer, few: Tensor, num_scorings: int) -> None:
    """Fit to the end, or go on from the fold's checkpoint; skill on the way is measured on the images `few` (n,)."""
    judged = ScoredNetwork(trainer.scored_model, pool, trainer.objective.mixture, trainer.accelerator.autocast)

    def measure(progress: Progress, tracker: Tracker) -> None:
        found = errors_by_scale(judged, few)
        when = {"step": progress.step, "seconds": progress.seconds, "images_seen": progress.images_seen}
        tracker.run.log({"kind": "skill", "errors": found, **when})

    part.folder.mkdir(parents=True, exist_ok=True)
    memory: dict[str, Any] = {"chance": trainer.objective.chance_losses}
    resume(trainer, part, memory)
    trainer.objective.chance_losses = memory["chance"]
    description = build.describe_model(config, trainer.model, pool)
    fit(part, trainer, config.track, description, memory, [(num_scorings, measure)])


def score_folds(
    pool: Pool, folds: Sequence[Tensor], asked: Sequence[Tensor], trainers: Sequence[Trainer], run: Run
) -> list[DamageErrors]:
    """Every pretext's errors on both folds (n,), each by the network of the other."""
    line = ProgressLine(run.speaker)
    mixture = trainers[0].objective.mixture
    total = 2 * sum(len(damage_names(pretext, pool.shape)) for pretext in mixture.pretexts.values())
    found: dict[str, DamageErrors] = {}
    done = itertools.count()
    for number, trainer in enumerate(trainers):
        scored = 1 - number
        judged = ScoredNetwork(trainer.scored_model, pool, mixture, trainer.accelerator.autocast)
        training = fold_images(pool, folds[number], trainer.accelerator.device)
        for name in mixture.pretexts:
            errors = measure_damages(
                judged, name, asked[scored], training, scored, lambda what: line.update(next(done) / total, what)
            )
            found[name] = found[name].joined(errors) if name in found else errors
    line.close()
    return list(found.values())


def write_discovery(
    run: Run, parts: Sequence[Run], pool: Pool, trainers: Sequence[Trainer], metrics: dict[str, Any]
) -> None:
    """`result.json`; images and seconds are those of both networks."""
    progress = [trainer.progress for trainer in trainers]
    seconds, images = sum(p.seconds for p in progress), sum(p.images_seen for p in progress)
    run.write_result(
        "completed",
        metrics=metrics,
        data=pool.summary(),
        seconds=seconds,
        images_seen=images,
        images_per_second=images / max(seconds, 1e-9),
        parts=parts,
    )
