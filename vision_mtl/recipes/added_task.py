"""The effect of a new task on the tasks that a model already has: check them, freeze what they share, score changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.baselines import baseline_metrics
from vision_mtl.evaluation.predictions import TaskPredictions, instance_values
from vision_mtl.evaluation.statistics import paired_difference
from vision_mtl.models.depth import freeze
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build
from vision_mtl.recipes.supervised import score_predictions


def check_old_tasks(pool: Pool, state: Mapping[str, Any], old: list[str]) -> None:
    """Raise `UserError` for an old task without images, or with other classes than the checkpoint `state` names."""
    for name in old:
        if name not in pool.targets:
            raise UserError(f"the old task {name!r} has no images here, so the effect on it cannot be measured.")
        found, known = pool.targets[name].class_names, state["class_names"].get(name, [])
        if found != known:
            raise UserError(f"task {name!r} was trained on classes {known}, but its images now show {found}.")


def freeze_shared(model: SharedModel, trunk: str, old: list[str]) -> None:
    """Freeze what the new task must not change: layers of the backbone, and the decoder if an old task reads it."""
    build.freeze_backbone(model, {"frozen": "all", "late": "early", "trained": "none"}[trunk])
    if trunk == "frozen" and any(model.task_specs[name].is_dense for name in old):
        model.frozen += freeze(model.decoder)


def score_changes(
    pool: Pool, before: Mapping[str, TaskPredictions], after: Mapping[str, TaskPredictions]
) -> dict[str, dict[str, Any]]:
    """Return each old task's score after training minus before, on the same test images.

    It is exactly 0 on a frozen trunk.
    """
    return {
        name: paired_difference(
            instance_values(after[name]), instance_values(found), pool.cluster[found.indices.numpy()]
        ).to_json()
        for name, found in before.items()
    }


def score_old_tasks(model: SharedModel, pool: Pool, after: Mapping[str, TaskPredictions]) -> dict[str, dict[str, Any]]:
    """Return each old task's kind and test scores after training, and those of the baselines, from all its labels."""
    scores = score_predictions(model, pool, after)
    return {
        name: {
            "kind": found.target.kind,
            **scores[name],
            **baseline_metrics(found, pool.indices("train", task=name), pool.cluster[found.indices.numpy()]),
        }
        for name, found in after.items()
    }
