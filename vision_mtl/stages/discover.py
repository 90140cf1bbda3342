"""Discovery: which damage can be repaired, which is worth learning, and a selection for pretraining.

The images are split in two folds; a network fitted to one, on the mixture of all damages, is scored on the other, and
the reverse. So every score is of an image that its network was not fitted to, and test images stay unseen. The same
idea in one run, without verdicts, is `discover_online.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES, Stage
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("discover")
@dataclass(frozen=True, kw_only=True)
class Discover(Stage):
    """Fit a network to each fold (optim is for one), score it on the other, judge every damage, select."""

    sections: ClassVar = (
        "data",
        "tasks",
        "pretexts",
        "backbone",
        "decoder",
        "optim",
        "runtime",
        "track",
    )
    defaults: ClassVar = {
        "pretexts.grid_mask.grid": [2, 3, 4, 6, 8],
        "pretexts.downsample.factor": [2, 4, 8],
        "optim.max_seconds": 110.0,
    }
    results: ClassVar = (
        ("figures", "maps of skill, and what is repaired best and worst"),
        ("selection.parquet", "what is worth learning"),
    )
    next_commands: ClassVar = (
        (
            "--stage pretrain --selection {run}/selection.parquet --data.unlabelled {sources}",
            "learn what is worth it",
        ),
    )
    arm: ClassVar = ArmRole(
        options={"optim": {"steps": 300}},
        pictures={"maps-grid_mask": "Where a hidden cell can be repaired", "scales": "Skill by scale"},
    )

    num_images: int = 60
    """Images of each source that are scored, half in each fold, each under every damage."""
    num_scorings: int = 4
    """Times that skill is measured during training, evenly over it; 0: only at the end."""
    select: Literal["learnable", "top", "soft"] = "learnable"
    """Weights of the selection: 1 for damage that is learnable in its source; 1 for the instances of most skill; or
    each instance's own skill."""
    select_by: Literal["skill", "progress"] = "skill"
    """What top and soft go by; progress: skill gained in training."""
    top_ratio: float = 0.25
    """Share of all instances that select=top keeps."""
    online: bool = False
    """Instead, one run: a network on all training images whose damages are drawn as often as their learning progress
    says. No verdicts; the options above are not for it, those below are for it alone."""
    online_floor: float = 0.25
    """Least weight of a damage, as a share of the mixture's own; 1: the mixture as it is. Lower follows progress more
    closely, and what other damages teach then undoes what is hardly drawn."""
    online_updates: int = 20
    """Times that the weights change, evenly over training."""
    online_images: int = 48
    """Validation images, sources alike, that progress is measured on at each update."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.discovery.folds import FOLDS, sample_images, split_folds
        from vision_mtl.discovery.learning_curve import skill_over_time
        from vision_mtl.discovery.measure import ScoredNetwork
        from vision_mtl.discovery.selection import controls, describe_instances
        from vision_mtl.discovery.selection import select as select_instances
        from vision_mtl.discovery.tables import build_tables
        from vision_mtl.recipes import build
        from vision_mtl.recipes.discovery import (
            FEW,
            check_discovery,
            fit_fold,
            images_to_use,
            score_folds,
            skill_records,
            suited_pretexts,
            write_discovery,
        )
        from vision_mtl.recipes.discovery_online import Online, check_mode, discover_online
        from vision_mtl.recipes.discovery_outputs import about_selection, write_figures, write_files
        from vision_mtl.recipes.repair import build_network, build_trainer

        check_mode(self, self.online)
        if self.online:
            return discover_online(config, run, Online(self.online_floor, self.online_updates, self.online_images))
        check_discovery(config, self.num_images, self.top_ratio)
        accelerator = config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        folds = split_folds(pool, images_to_use(config, pool), config.seed)
        asked = [sample_images(pool, fold, math.ceil(self.num_images / 2)) for fold in folds]
        pretexts = suited_pretexts(run, pool, build.build_pretexts(config), [*folds, *asked])
        few = [sample_images(pool, indices, FEW) for indices in asked]

        parts = [run.part(run.folder / f"fold-{name.lower()}") for name in FOLDS]
        trainers = []
        for number, part in enumerate(parts):
            run.say(f"fold {FOLDS[number]}: fitting to {len(folds[number]):,} images")
            model = build_network(config, pretexts)
            trainer = build_trainer(config, part, pool, folds[number], model, pretexts, accelerator)
            fit_fold(config, part, pool, trainer, few[1 - number], self.num_scorings)
            trainers.append(trainer)
            run.warnings += [text for text in part.warnings if text not in run.warnings]
        errors = score_folds(pool, folds, asked, trainers, run)

        tables = build_tables(pool, errors)
        instances = describe_instances(pool, errors, tables)
        chosen = select_instances(
            instances, about_selection(config, pool, pretexts), self.select, self.top_ratio, self.select_by
        )
        if not chosen.columns["weight"].any():
            run.warn(f"the selection is empty: no instance has a weight above 0 by discover.select={self.select}.")
        course = skill_over_time([skill_records(part) for part in parts], few, errors)
        write_files(run, tables, instances, {"selection": chosen, **controls(chosen)})
        networks = [ScoredNetwork(trainer.scored_model, pool, trainer.objective.mixture) for trainer in trainers]
        write_figures(run, networks, errors, tables, course)
        write_discovery(run, parts, pool, trainers, {**tables.metrics(), "skill_over_time": course})
