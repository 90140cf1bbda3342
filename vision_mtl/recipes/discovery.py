"""Discovery by cross-fitting: train a network on each fold, and score it on the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.learning_curve import errors_by_scale
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, measure_damages, num_reports
from vision_mtl.discovery.rule_errors import usable_indices
from vision_mtl.discovery.selection import check_ratio
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.recipes import build
from vision_mtl.recipes.discovery_online import check_one_cell
from vision_mtl.recipes.fit import fit
from vision_mtl.recipes.repair import CHANCE_IMAGES, RepairTrainer, resume_repair
from vision_mtl.training.progress import phase
from vision_mtl.training.step_record import Progress
from vision_mtl.training.tracking import Tracker

NUM_CURVE_IMAGES = 6  # of each source and fold: skill is measured on them during training


def check_discovery(config: RunConfig, num_images: int, top_ratio: float) -> None:
    """Raise `UserError` for an option out of range, or one that cross-fitting cannot use."""
    if config.init_from:
        raise UserError(
            f"discover trains its own networks, because images seen before cannot be scored; leave out --init_from "
            f"{config.init_from} (--backbone.pretrained starts from published weights)."
        )
    if num_images < 4:
        raise UserError(f"discover.num_images must be 4 or more; found {num_images}.")
    check_ratio(top_ratio)
    check_one_cell(config)


def skill_records(fold_run: Run) -> list[dict[str, Any]]:
    """Return the skill measurements made while the fold's network was trained."""
    return [record for record in fold_run.records() if record.get("kind") == "skill"]


def discovery_images(config: RunConfig, pool: Pool) -> Tensor:
    """Return the indices (n,) of training and validation images; test images too with `data.include_test`."""
    splits = ["train", "val"] + (["test"] if config.data.include_test else [])
    return torch.cat([pool.indices(split) for split in splits]).sort().values


def usable_pretexts(
    run: Run, pool: Pool, pretexts: dict[str, Pretext], samples: Sequence[Tensor]
) -> dict[str, Pretext]:
    """Return the pretexts that suit an image in each of `samples`, (n,) indices each; warn about the others.

    Raises `UserError` if none is left.
    """
    checked = [spread_evenly(indices, CHANCE_IMAGES) for indices in samples]  # those that chance is measured on
    kept = {n: p for n, p in pretexts.items() if all(len(usable_indices(pool, p, indices)) for indices in checked)}
    for name in pretexts.keys() - kept.keys():
        run.warn(f"pretext {name} is left out: it suits no image of one of the folds.")
    if not kept:
        raise UserError("discover has no damage to measure: no pretext suits these images, or all weights are 0.")
    return kept


def fit_fold(
    config: RunConfig,
    fold_run: Run,
    pool: Pool,
    trainer: RepairTrainer,
    curve_images: Tensor,
    num_scorings: int,
    teacher: dict[str, Any] | None = None,
) -> None:
    """Train a fold's network to the end, from its checkpoint if there is one; `teacher` is recorded with its weights.

    `num_scorings` times over the run, skill is measured on the images `curve_images` (n,).
    """
    network = ScoredNetwork(trainer.scored_model, pool, trainer.objective.mixture, trainer.accelerator.autocast)

    def measure(progress: Progress, tracker: Tracker) -> None:
        found = errors_by_scale(network, curve_images)
        when = {"step": progress.step, "seconds": progress.seconds, "images_seen": progress.images_seen}
        tracker.run.log({"kind": "skill", "errors": found, **when})

    fold_run.folder.mkdir(parents=True, exist_ok=True)
    memory = resume_repair(trainer, fold_run)
    description = build.describe_model(config, trainer.model, pool, teacher)
    fit(fold_run, trainer, config.track, description, memory, [(num_scorings, measure)])


def score_folds(
    config: RunConfig,
    pool: Pool,
    folds: Sequence[Tensor],
    scored: Sequence[Tensor],
    trainers: Sequence[RepairTrainer],
    starts: Sequence[SharedModel | None],
    run: Run,
) -> list[DamageErrors]:
    """Return every pretext's errors on the images `scored` of each fold, by the network of the other fold.

    `folds` and `scored` hold indices (n,) by fold, `starts` the networks before training, where they are known.
    """
    mixture, cache = trainers[0].objective.mixture, Path(config.data.root).expanduser() / "store"
    total = 2 * sum(num_reports(pretext, pool.shape) for pretext in mixture.pretexts.values())
    found: dict[str, DamageErrors] = {}
    done = itertools.count()
    with phase(run.speaker, "scoring repairs") as show:
        for number, trainer in enumerate(trainers):
            other = 1 - number
            network = ScoredNetwork(trainer.scored_model, pool, mixture, trainer.accelerator.autocast, starts[number])
            training = fold_images(pool, folds[number], trainer.accelerator.device)
            for name, pretext in mixture.pretexts.items():
                usable = usable_indices(pool, pretext, scored[other])
                errors = measure_damages(
                    network, name, usable, training, other, lambda what: show(next(done) / total, what), cache
                )
                found[name] = found[name].joined(errors) if name in found else errors
    return list(found.values())


def write_discovery(
    run: Run, fold_runs: Sequence[Run], pool: Pool, trainers: Sequence[RepairTrainer], metrics: dict[str, Any]
) -> None:
    """Write `result.json`; its images and seconds are the sums over both networks."""
    progress = [trainer.progress for trainer in trainers]
    run.about |= fold_runs[0].about
    seconds, images = sum(p.seconds for p in progress), sum(p.images_seen for p in progress)
    run.write_result(
        "completed",
        metrics=metrics,
        data=pool.summary(),
        seconds=seconds,
        images_seen=images,
        images_per_second=images / max(seconds, 1e-9),
        parts=fold_runs,
    )
