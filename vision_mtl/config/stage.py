"""The stages by name, and the results and next commands that several share; `Stage` is their base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vision_mtl.config.next_command import (
    NextCommand,
    can_draw_repairs,
    has_heads,
    has_no_task,
    has_probed_task,
    has_tasks,
    starts_without_heads,
)
from vision_mtl.config.run_config import Hint, Stage
from vision_mtl.core.registry import Registry

__all__ = ["STAGES", "TASK_RESULTS", "Hint", "NextCommand", "Stage"]

STAGES: Registry[type[Stage]] = Registry("stage", "vision_mtl.stages")

# results and next commands that several stages share
TASK_RESULTS: Sequence[Hint] = (
    ("figures/curves.png", "losses over the run"),
    ("figures", "all pictures"),
    ("tables", "scores of each class"),
)
FROM_RUN, FROM_START = {"init_from": "{run}"}, {"init_from": "{start}"}
A_TASK = {"tasks.my_task.source": "folder/PATH"}
WHERE = "PATH holds a folder of images for each class"
AFTER_DATA: Sequence[NextCommand] = (
    NextCommand("pretrain", "pretrain on these images"),
    NextCommand("finetune", "train the tasks", when=has_tasks),
)
AFTER_PRETRAINING: Sequence[NextCommand] = (
    NextCommand("probe", "measure its features", FROM_RUN, has_probed_task),
    NextCommand("finetune", "train the tasks from it", FROM_RUN, has_tasks),
    NextCommand("probe", f"measure its features on a task: {WHERE}", FROM_RUN | A_TASK, has_no_task),
    NextCommand("finetune", f"train a task from it: {WHERE}", FROM_RUN | A_TASK, has_no_task),
    NextCommand("reconstruct", "draw more repairs", FROM_RUN, can_draw_repairs),
)
AFTER_TASKS: Sequence[NextCommand] = (
    NextCommand("predict", "predict image files: PATH is a file or a folder", FROM_RUN | {"predict.images": "PATH"}),
    NextCommand("export", "export it for timm, ONNX and torch.export", FROM_RUN),
)
AFTER_PROBE: Sequence[NextCommand] = (
    NextCommand("finetune", "train the whole network", FROM_RUN, has_heads),
    NextCommand("finetune", "train the whole network", FROM_START, starts_without_heads),
    *(replace(command, when=has_heads) for command in AFTER_TASKS),
)
AFTER_USE: Sequence[NextCommand] = (
    NextCommand("explore", "damage images by hand and see every prediction, in a browser", FROM_START),
)
