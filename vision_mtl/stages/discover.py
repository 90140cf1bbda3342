"""Discovery: which damage can be repaired, which is worth learning, and a selection for pretraining.

The images are split in two folds; a network fitted to one, on the mixture of all damages, is scored on the other, and
the reverse. So every score is of an image that its network was not fitted to, and test images stay unseen. The same
idea in one run, without verdicts, is `discover_online.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import FOLDS, fold_images, sample_images, split_folds
from vision_mtl.discovery.learning_curve import errors_by_scale, skill_over_time
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, damage_names, measure_damages, suited
from vision_mtl.discovery.selection import check_ratio, controls, describe_instances
from vision_mtl.discovery.selection import select as select_instances
from vision_mtl.discovery.tables import build_tables
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.pretext.contract import Pretext
from vision_mtl.recipes import build
from vision_mtl.recipes.discovery_online import Online, check_mode, check_one_cell, discover_online
from vision_mtl.recipes.discovery_outputs import about_selection, write_figures, write_files
from vision_mtl.recipes.fit import fit, resume
from vision_mtl.recipes.repair import build_network, build_trainer
from vision_mtl.recipes.tuned import tuned
from vision_mtl.stages.pretrain import CHANCE_IMAGES
from vision_mtl.training.loop import Progress, Trainer
from vision_mtl.training.progress import ProgressLine
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Track, Tracker

SECTIONS = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "runtime", "track")
FEW = 6  # images of each source and fold that skill is measured on during training


@STAGES.register("discover")
def discover(
    config: RunConfig,
    run: Run,
    *,
    num_images: int = 60,  # images of each source that are scored, half in each fold, each under every damage
    num_scorings: int = 4,  # times that skill is measured during training, evenly over it; 0: only at the end
    select: Literal["learnable", "top", "soft"] = "learnable",  # weights of the selection: 1 for damage that is
    # learnable in its source; 1 for the instances of most skill; or each instance's own skill
    select_by: Literal["skill", "progress"] = "skill",  # what top and soft go by; progress: skill gained in training
    top_ratio: float = 0.25,  # share of all instances that select=top keeps
    online: bool = False,  # instead, one run: a network on all training images whose damages are drawn as often as
    # their learning progress says. No verdicts; the options above are not for it, those below are for it alone
    online_floor: float = 0.25,  # least weight of a damage, as a share of the mixture's own; 1: the mixture as it is.
    # Lower follows progress more closely, and what other damages teach then undoes what is hardly drawn
    online_updates: int = 20,  # times that the weights change, evenly over training
    online_images: int = 48,  # validation images, sources alike, that progress is measured on at each update
) -> None:
    """Fit a network to each fold (optim is for one), score it on the other, judge every damage, select."""
    check_mode(config.own, online)
    if online:
        return discover_online(config, run, Online(online_floor, online_updates, online_images))
    check(config, num_images, top_ratio)
    accelerator = Runtime(**config.runtime).accelerator(config.device)
    pool = build.open_pool(config, run)
    folds = split_folds(pool, images_to_use(config, pool), config.seed)
    asked = [sample_images(pool, fold, math.ceil(num_images / 2)) for fold in folds]
    pretexts = suited_pretexts(run, pool, build.build_pretexts(config), [*folds, *asked])
    few = [sample_images(pool, indices, FEW) for indices in asked]

    parts = [run.part(run.folder / f"fold-{name.lower()}") for name in FOLDS]
    trainers = []
    for number, part in enumerate(parts):
        run.say(f"fold {FOLDS[number]}: fitting to {len(folds[number]):,} images")
        model = build_network(config, pretexts)
        trainer = build_trainer(config, part, pool, folds[number], model, pretexts, accelerator)
        trainer = tuned(config, run, trainer)
        train(config, part, pool, trainer, few[1 - number], num_scorings)
        trainers.append(trainer)
        run.warnings += [text for text in part.warnings if text not in run.warnings]
    errors = score(pool, folds, asked, trainers, run)

    tables = build_tables(pool, errors)
    instances = describe_instances(pool, errors, tables)
    chosen = select_instances(instances, about_selection(config, pool, pretexts), select, top_ratio, select_by)
    if not chosen.columns["weight"].any():
        run.warn(f"the selection is empty: no instance has a weight above 0 by discover.select={select}.")
    course = skill_over_time([skill_records(part) for part in parts], few, errors)
    write_files(run, tables, instances, {"selection": chosen, **controls(chosen)})
    networks = [ScoredNetwork(trainer.scored_model, pool, trainer.objective.mixture) for trainer in trainers]
    write_figures(run, networks, errors, tables, course)
    write_result(run, parts, pool, trainers, {**tables.metrics(), "skill_over_time": course})


def check(config: RunConfig, num_images: int, top_ratio: float) -> None:
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
    sides = ["train", "val"] + (["test"] if config.data.get("include_test") else [])
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


def train(config: RunConfig, part: Run, pool: Pool, trainer: Trainer, few: Tensor, num_scorings: int) -> None:
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
    fit(part, trainer, Track(**config.track), description, memory, [(num_scorings, measure)])


def score(
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


def write_result(
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
