"""The contract of a stage, and the stages by name.

A stage is a frozen dataclass in `stages/NAME.py`: its fields are its own options, its class variables declare what it
reads, inherits and writes, and `run` is the recipe. Adding a stage means adding that file. Heavy packages are imported
inside `run`, so that `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vision_mtl.core.registry import Registry
from vision_mtl.study.roles import ArmRole

if TYPE_CHECKING:
    from vision_mtl.config.run_config import RunConfig
    from vision_mtl.core.run import Run

Hint = tuple[str, str]  # a file or a command, and its purpose


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base of every stage."""

    registered_name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ()
    """Sections of the config that the stage reads."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Dotted option -> default that replaces the component's."""
    inherits_images: ClassVar[bool] = False
    """With `--init_from`, use the images and tasks of that run unless others are given."""
    uses_unlabelled: ClassVar[bool] = True
    """Unlabelled images of the default or of the run to start from are used."""
    adds_tasks: ClassVar[bool] = False
    """Given tasks are added to those of the run that this one starts from."""
    mixes_pretexts_with_tasks: ClassVar[bool] = False
    """Damaged and labelled images share a batch, so all must have one size."""
    writes_run: ClassVar[bool] = True
    """False: `--run_dir` names an existing run, and no folder is made."""
    changeable: ClassVar[tuple[str, ...]] = ("runtime.shard",)
    """Options that change no result, so a resumed run may be given other values."""
    arm: ClassVar[ArmRole | None] = None
    """The stage's role in an arm of a study; None: it cannot be in one."""
    results: ClassVar[Sequence[Hint]] = ()
    """The most useful files of a finished run; those that exist are listed at its end."""
    next_commands: ClassVar[Sequence[Hint]] = ()
    """Arguments of `python train.py` in commands to suggest next; {run}, {sources} and {tasks} are filled in."""

    def run(self, config: RunConfig, run: Run) -> None:
        """Run the stage in the run's folder and write its result. Raises `UserError` for what the user can fix."""
        raise NotImplementedError


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
