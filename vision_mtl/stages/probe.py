"""Frozen backbone: a linear probe and nearest neighbours on every task, beside chance, pixels and random weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import AFTER_TASKS, STAGES, Stage
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.recipes.probing import score_tasks
from vision_mtl.study.roles import ArmRole


@STAGES.register("probe")
@dataclass(frozen=True, kw_only=True)
class Probe(Stage):
    """Extract features, fit and choose on training and validation images, then score on the test images, once."""

    sections: ClassVar = ("data", "tasks", "backbone", "runtime")
    inherits_images: ClassVar = True
    uses_unlabelled: ClassVar = False
    results: ClassVar = (
        ("figures/scores_accuracy.png", "every method beside the others"),
        ("tables", "each class of each task"),
        ("test_instances.parquet", "every answer to every test image"),
    )
    next_commands: ClassVar = AFTER_TASKS
    arm: ClassVar = ArmRole(
        judged=True,
        method="linear",
        fractions_option="fractions",
        fixed_options={"heads": False},
        options={"probe": {"embedding_images": 0}},
    )

    fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    """Shares of the training labels; all of them is always there."""
    poolings: list[Literal["mean", "max"]] = field(default_factory=lambda: ["mean", "max"])
    """Ways of pooling a map, to choose from."""
    embedding_images: int = 1000
    """Most test images on each task's map of features; 0 draws none."""
    heads: bool = True
    """Keep a linear head a task with the backbone: predict and export then take this run."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.features import extract_features
        from vision_mtl.evaluation.probing import ProbePrediction
        from vision_mtl.recipes import build
        from vision_mtl.recipes.probe_heads import fit_heads
        from vision_mtl.recipes.probe_outputs import draw, write_judged, write_tables
        from vision_mtl.recipes.probing import (
            ALL_LABELS,
            answer_task,
            clean_maps,
            draw_subsets,
            feature_sets,
            open_backbone,
            open_tasks,
            warn_of_steps,
        )

        start = time.perf_counter()
        if not self.poolings:
            raise UserError("probe.poolings must name at least one pooling; found none.")
        runtime = config.runtime
        accelerator = runtime.accelerator(config.device)
        backbone = open_backbone(config, run)
        pool = build.open_pool(config, run)
        indices, tasks = open_tasks(config, run, pool)
        subsets = draw_subsets(config, run, pool, indices, tasks, self.fractions)

        maps_of = partial(
            clean_maps, pool=pool, indices=indices, poolings=self.poolings, runtime=runtime, accelerator=accelerator
        )
        features, clean = feature_sets(config, backbone, pool, indices, maps_of)
        run.say(f"features of {len(indices):,} images extracted in {time.perf_counter() - start:.0f} s")
        answers: dict[str, dict[str, dict[str, ProbePrediction]]] = {}
        shown: dict[str, np.ndarray] = {}
        for name, task in tasks.items():
            answers[name], shown[name] = answer_task(features, task, subsets[name])
            warn_of_steps(run, name, answers[name])
        if self.heads:
            last = extract_features(clean, pool, indices, autocast=accelerator.autocast)
            for name, answer in fit_heads(run, config, pool, clean, tasks, last).items():
                answers[name][ALL_LABELS]["head"] = answer

        metrics = score_tasks(pool, indices, tasks, subsets, answers)
        write_judged(run, pool, indices, tasks, subsets, answers)
        write_tables(run, pool, tasks, {name: found[ALL_LABELS] for name, found in answers.items()})
        draw(
            run,
            pool,
            tasks,
            {name: found[ALL_LABELS] for name, found in answers.items()},
            shown,
            metrics,
            self.embedding_images,
        )
        run.write_result("completed", metrics=metrics, data=pool.summary(), seconds=time.perf_counter() - start)
