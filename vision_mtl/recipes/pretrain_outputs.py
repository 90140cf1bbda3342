"""Outputs of pretraining, during and after it: an online probe, pictures, curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision_mtl.core.run import Run
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import Autocast, extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.online import online_probe
from vision_mtl.inference.pictures import repair_figure
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes.fit import Action
from vision_mtl.recipes.repair import RepairTrainer
from vision_mtl.recipes.repair_scores import write_skill_figure
from vision_mtl.recipes.run_warnings import measure_rank
from vision_mtl.training.options import Track
from vision_mtl.training.step_record import Progress
from vision_mtl.training.tracking import Tracker
from vision_mtl.viz.curves import curves_figure
from vision_mtl.viz.style import save_chart, save_pictures

PROJECTED_IMAGES = 200  # validation images per task in TensorBoard's projector


def pretrain_actions(trainer: RepairTrainer, pool: Pool, track: Track) -> list[Action]:
    """Return the online probe and the pictures, each with its number of times from `track`."""

    def probe(progress: Progress, tracker: Tracker) -> None:
        backbone, autocast = trainer.scored_model.backbone, trainer.accelerator.autocast
        tracker.show("probing the features")
        clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=autocast)
        found = online_probe(clean, pool, autocast)
        rank = measure_rank(tracker.run, clean, pool, f"at step {progress.step}", autocast)
        when = {"step": progress.step, "images_seen": progress.images_seen}
        tracker.run.log({"kind": "probe", **when, "tasks": found, "rank": rank})
        tracker.scalars(progress.step, {f"knn/{task}": score["knn"] for task, score in found.items()})
        if trainer.optim.progress(progress.step, progress.seconds) >= 1.0:
            project_features(tracker, clean, pool, progress.step, autocast)

    def picture(progress: Progress, tracker: Tracker) -> None:
        tracker.show("drawing repairs")
        figure = repair_figure(trainer.scored_model, pool, trainer.objective.mixture, "val")
        if figure is not None:
            tracker.figure(progress.step, "repairs", figure)

    return [(track.num_probes, probe), (track.num_pictures, picture)]


def project_features(tracker: Tracker, clean: Backbone, pool: Pool, step: int, autocast: Autocast) -> None:
    """Record the features of some validation images of each task, for TensorBoard's projector."""
    if not tracker.recorders:
        return
    for task, labels in pool.labels.items():
        chosen = spread_evenly(pool.indices("val", task=task), PROJECTED_IMAGES)
        if len(chosen):
            features = extract_features(clean, pool, chosen, autocast=autocast)
            names = [pool.class_names[task][number] for number in labels[chosen.numpy()]]
            tracker.embedding(step, f"features_{task}", features, names, pool.gather(chosen))


def write_figures(
    run: Run, trainer: RepairTrainer, pool: Pool, metrics: dict[str, Any], tasks: Mapping[str, Task]
) -> None:
    """Draw repairs of test images, loss curves, and what training added by source."""
    if not run.is_main:
        return
    model, mixture = trainer.scored_model, trainer.objective.mixture
    repairs = repair_figure(model, pool, mixture, "test", metrics.get("skill_learned", {}))
    save_pictures(repairs, run.figures, "repairs")
    save_chart(curves_figure(run.records()), run.figures, "curves")
    write_skill_figure(run, metrics, tasks)
