"""The stages by name, and the results and next commands that several share; `Stage` is their base."""

from __future__ import annotations

from collections.abc import Sequence

from vision_mtl.config.run_config import Hint, Stage
from vision_mtl.core.registry import Registry

__all__ = ["AFTER_PRETRAINING", "AFTER_TASKS", "STAGES", "TASK_RESULTS", "Hint", "Stage"]

STAGES: Registry[type[Stage]] = Registry("stage", "vision_mtl.stages")

# results and next commands that several stages share
TASK_RESULTS: Sequence[Hint] = (
    ("figures/curves.png", "losses over the run"),
    ("figures", "all pictures"),
    ("tables", "scores of each class"),
)
AFTER_PRETRAINING: Sequence[Hint] = (
    ("--stage probe --init_from {run}{tasks}", "measure its features"),
    ("--stage finetune --init_from {run}{tasks}", "train the tasks from it"),
    ("--stage reconstruct --init_from {run}", "draw more repairs"),
)
AFTER_TASKS: Sequence[Hint] = (
    ("--stage predict --init_from {run} --predict.images PATH", "predict image files"),
    ("--stage export --init_from {run}", "export it for timm, ONNX and torch.export"),
)
