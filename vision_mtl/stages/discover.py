"""Measure which damage a network learns to repair, and write a selection of it for pretraining.

By cross-fitting: the images are split into two folds. A network trained on one fold, on the mixture of all damages, is
scored on the other fold, and the reverse. So no network scores an image that it was trained on, and test images stay
unseen. With `discover.online`, one network is trained instead, and the damages are drawn by learning progress
(`recipes/discovery_online.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from vision_mtl.config.next_command import NextCommand, has_selected_damage, has_selected_no_damage
from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import STAGES
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("discover")
@dataclass(frozen=True, kw_only=True)
class Discover(Stage):
    """Train a network on each fold, score it on the other, classify every damage, write the selection.

    `optim` is the budget of one network.
    """

    sections: ClassVar = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "runtime", "track", "score")
    defaults: ClassVar = {
        "pretexts.grid_mask.grid": [2, 3, 4, 6, 8],
        "pretexts.downsample.factor": [2, 4, 8],
        "optim.max_seconds": 110.0,
    }
    results: ClassVar = (
        ("figures", "skill maps, best and worst repairs"),
        ("selection.parquet", "the damage worth learning"),
    )
    next_commands: ClassVar = (
        NextCommand(
            "pretrain", "pretrain on the selection", {"selection": "{run}/selection.parquet"}, has_selected_damage
        ),
        NextCommand("pretrain", "nothing is selected: pretrain on the whole mixture", when=has_selected_no_damage),
    )
    arm: ClassVar = ArmRole(
        noun="discovery",
        options={"optim": {"steps": 300}},
        pictures={"maps-grid_mask": "Where a hidden cell can be repaired", "scales": "Skill by scale"},
    )

    num_images: int = 60
    """Images of each source to score under every damage, half in each fold; 4 or more."""
    num_scorings: int = 4
    """Measurements of skill during training, evenly spaced. 0: only at the end."""
    select: Literal["learnable", "top", "soft"] = "learnable"
    """Weights of the selection. learnable: 1 for damage that is learnable in its source; top: 1 for the instances with
    the highest skill; soft: each instance's skill."""
    select_by: Literal["skill", "progress"] = "skill"
    """Score that top and soft use. skill: at the end; progress: gained during training."""
    top_ratio: float = 0.25
    """Share of all instances that select=top keeps, in (0, 1]."""
    online: bool = False
    """Train one network on all training images instead, and draw damages by learning progress; no verdicts. The options
    above then have no use, and those below are for it alone."""
    online_floor: float = 0.25
    """Minimum weight of a damage, as a share of its weight in the mixture, in (0, 1]. 1: the mixture unchanged. Lower
    values follow progress more closely, but rarely drawn damages are forgotten."""
    online_updates: int = 20
    """Updates of the weights, evenly spaced over training."""
    online_images: int = 48
    """Validation images that progress is measured on at each update, divided equally among sources."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.discovery.folds import FOLDS, sample_images, split_folds
        from vision_mtl.discovery.learning_curve import skill_over_time
        from vision_mtl.discovery.measure import ScoredNetwork
        from vision_mtl.discovery.selection import controls, describe_instances
        from vision_mtl.discovery.selection import select as select_instances
        from vision_mtl.discovery.tables import build_tables
        from vision_mtl.recipes import build
        from vision_mtl.recipes.discovery import (
            NUM_CURVE_IMAGES,
            check_discovery,
            discovery_images,
            fit_fold,
            score_folds,
            skill_records,
            usable_pretexts,
            write_discovery,
        )
        from vision_mtl.recipes.discovery_online import OnlineOptions, check_mode, discover_online
        from vision_mtl.recipes.discovery_outputs import describe_selection, write_figures, write_files
        from vision_mtl.recipes.feature_scores import score_features
        from vision_mtl.recipes.initial_weights import before_training
        from vision_mtl.recipes.repair import build_network, build_trainer
        from vision_mtl.recipes.teacher import bind_teachers
        from vision_mtl.training.progress import phase

        check_mode(self, self.online)
        if self.online:
            options = OnlineOptions(self.online_floor, self.online_updates, self.online_images)
            return discover_online(config, run, options)
        check_discovery(config, self.num_images, self.top_ratio)
        accelerator = config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        folds = split_folds(pool, discovery_images(config, pool), config.seed)
        scored = [sample_images(pool, fold, math.ceil(self.num_images / 2)) for fold in folds]
        pretexts = bind_teachers(config, run, pool, build.build_pretexts(config), accelerator.device)
        pretexts = usable_pretexts(run, pool, pretexts, [*folds, *scored])
        curve_images = [sample_images(pool, indices, NUM_CURVE_IMAGES) for indices in scored]

        # train a network on each fold
        fold_runs = [run.part(run.folder / f"fold-{name.lower()}") for name in FOLDS]
        trainers, starts = [], []
        for number, fold_run in enumerate(fold_runs):
            run.say(f"fold {FOLDS[number]}: training on {len(folds[number]):,} images")
            model = build_network(config, pretexts, fold_run)
            starts.append(before_training(model))
            trainer = build_trainer(config, fold_run, pool, folds[number], model, pretexts, accelerator)
            fit_fold(
                config, fold_run, pool, trainer, curve_images[1 - number], self.num_scorings, run.about.get("teacher")
            )
            trainers.append(trainer)
            run.warnings += [text for text in fold_run.warnings if text not in run.warnings]

        # score each on the other fold, and classify every damage
        errors = score_folds(config, pool, folds, scored, trainers, starts, run)
        with phase(run.speaker, "judging every damage"):
            tables = build_tables(pool, errors)
            instances = describe_instances(pool, errors, tables)
        selection = select_instances(
            instances, describe_selection(config, pool, pretexts), self.select, self.top_ratio, self.select_by
        )
        if not selection.columns["weight"].any():
            run.warn(f"the selection is empty: no instance has a weight above 0 by discover.select={self.select}.")
        curve = skill_over_time([skill_records(fold_run) for fold_run in fold_runs], curve_images, errors)

        write_files(run, tables, instances, {"selection": selection, **controls(selection)})
        networks = [ScoredNetwork(trainer.scored_model, pool, trainer.objective.mixture) for trainer in trainers]
        with phase(run.speaker, "drawing figures"):
            write_figures(run, networks, errors, tables, curve, config.tasks)
        selected = {"selected_ratio": float((selection.columns["weight"] > 0).mean())}
        features = score_features(config, run, networks[0].model, starts[0], pool, accelerator.autocast)  # of fold A
        metrics = {**tables.metrics(), **selected, "skill_over_time": curve, "features": features}
        write_discovery(run, fold_runs, pool, trainers, metrics)
