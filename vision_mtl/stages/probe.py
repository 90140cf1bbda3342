"""Frozen backbone: linear probe and kNN on every task, compared with chance, pixels, HOG and random weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_PROBE, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("probe")
@dataclass(frozen=True, kw_only=True)
class Probe(Stage):
    """Extract features once, fit probes on training images, choose on validation images, score on test images."""

    sections: ClassVar = ("data", "tasks", "backbone", "runtime")
    inherits_images: ClassVar = True
    uses_unlabelled: ClassVar = False
    results: ClassVar = (
        ("figures/scores_accuracy.png", "all methods compared"),
        ("tables", "each class of each task"),
        ("test_instances.parquet", "every prediction for every test image"),
    )
    next_commands: ClassVar = AFTER_PROBE
    arm: ClassVar = ArmRole(
        judged=True,
        method="linear",
        references=("linear_random_init", "hog_knn"),
        fractions_option="fractions",
        fixed_options={"heads": False},
        options={"probe": {"embedding_images": 0}},
    )

    fractions: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0])
    """Shares of the labels to probe with, training and validation alike, each in (0, 1]; 1.0 is always added."""
    poolings: list[Literal["mean", "max"]] = field(default_factory=lambda: ["mean", "max"])
    """Poolings of a feature map to choose from. mean: average over positions; max: maximum over positions."""
    crops: int = 1
    """Crops of each image whose features are averaged, the whole image first, for learned and random weights alike;
    1: the whole image only. HOG, pixels and the saved heads see the whole image."""
    embedding_images: int = 1000
    """Maximum number of test images on each task's map of features. 0: no map."""
    heads: bool = True
    """Save the backbone with a linear head per task, so that predict and export can use the run."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.features import extract_features
        from vision_mtl.recipes import build
        from vision_mtl.recipes.probe_heads import fit_heads
        from vision_mtl.recipes.probe_outputs import write_figures, write_tables, write_test_instances
        from vision_mtl.recipes.probing import (
            ALL_LABELS,
            clean_maps,
            draw_budgets,
            feature_sets,
            open_backbone,
            open_tasks,
            predict_task,
            score_tasks,
            warn_about_convergence,
        )
        from vision_mtl.training.progress import phase

        start = time.perf_counter()
        if not self.poolings:
            raise UserError("probe.poolings must name at least one pooling; found none.")
        if self.crops < 1:
            raise UserError(f"probe.crops must be 1 (the whole image) or more; found {self.crops}.")
        accelerator = config.runtime.accelerator(config.device)
        backbone = open_backbone(config, run)
        pool = build.open_pool(config, run)
        indices, tasks = open_tasks(config, run, pool)
        budgets = draw_budgets(config, run, pool, tasks, self.fractions)

        maps_of = partial(
            clean_maps,
            pool=pool,
            indices=indices,
            poolings=self.poolings,
            crops=self.crops,
            runtime=config.runtime,
            accelerator=accelerator,
        )
        with phase(run.speaker, f"extracting features of {len(indices):,} images") as show:
            features, clean_backbone = feature_sets(config, backbone, pool, indices, maps_of, show)
        each = "" if self.crops == 1 else f", the mean over {self.crops} crops of each,"
        run.say(f"features of {len(indices):,} images{each} extracted in {time.perf_counter() - start:.0f} s")

        predictions, chosen_features = {}, {}
        with phase(run.speaker, "fitting probes") as show:
            for number, (name, task) in enumerate(tasks.items()):
                show(number / len(tasks), name)
                predictions[name], chosen_features[name] = predict_task(features, task, budgets[name])
        for name, found in predictions.items():
            warn_about_convergence(run, name, found)
        if self.heads:
            with phase(run.speaker, "fitting heads"):
                last_map = features["linear"].get((len(clean_backbone.channels) - 1, "mean"))
                if last_map is None or self.crops > 1:  # the heads see whole images
                    last_map = extract_features(clean_backbone, pool, indices, autocast=accelerator.autocast)
                heads = fit_heads(run, config, pool, clean_backbone, tasks, last_map)
            for name, prediction in heads.items():
                predictions[name][ALL_LABELS]["head"] = prediction

        with phase(run.speaker, "scoring the test images"):
            metrics = score_tasks(pool, indices, tasks, budgets, predictions)
            with_all_labels = {name: found[ALL_LABELS] for name, found in predictions.items()}
            write_test_instances(run, pool, indices, tasks, budgets, predictions)
            write_tables(run, pool, tasks, with_all_labels)
        with phase(run.speaker, "drawing figures"):
            write_figures(run, pool, tasks, with_all_labels, chosen_features, metrics, self.embedding_images)
        run.write_result("completed", metrics=metrics, data=pool.summary(), seconds=time.perf_counter() - start)
