"""The contract of a stage, and the stages by name.

A stage is a frozen dataclass in `stages/NAME.py`: its fields are its own options, its class variables say what it
reads, inherits and leaves behind, and `run` is the recipe. Adding a stage means adding that file. The file imports
nothing heavy at its top, so that `--help` is answered at once; `run` imports what it needs.
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

Hint = tuple[str, str]  # a file or a command, and what it is for


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base of every stage."""

    registered_name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ()
    """Sections of the config that the stage reads."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Dotted option -> a default other than the component's own."""
    inherits_images: ClassVar[bool] = False
    """With `--init_from`, use the images and tasks of that run unless others are given."""
    uses_unlabelled: ClassVar[bool] = True
    """Whether images without labels are of use."""
    adds_tasks: ClassVar[bool] = False
    """Given tasks are added to those of the run that this one starts from."""
    mixes_pretexts_with_tasks: ClassVar[bool] = False
    """Damaged and labelled images share a batch, so all must have one size."""
    writes_run: ClassVar[bool] = True
    """False: `--run_dir` names the run to look at, and no folder is made."""
    changeable: ClassVar[tuple[str, ...]] = ("runtime.shard",)
    """Options that change no result, so a resumed run may be given other values."""
    extendable: ClassVar[tuple[str, ...]] = ("optim.steps",)
    """Options that a larger (or longer) value extends a run by."""
    arm: ClassVar[ArmRole | None] = None
    """The stage's part in an arm of a study; None: it has none."""
    results: ClassVar[Sequence[Hint]] = ()
    """Files of a finished run that a person wants first; those that exist are named."""
    next_commands: ClassVar[Sequence[Hint]] = ()
    """What follows `python train.py` in commands to give next; {run}, {sources} and {tasks} are filled in."""

    def run(self, config: RunConfig, run: Run) -> None:
        """Do the work in the run's folder and write its result. Raises `UserError` for what the user can change."""
        raise NotImplementedError


STAGES: Registry[type[Stage]] = Registry("stage", "vision_mtl.stages")

# what several stages leave behind, and what comes after them
TASK_RESULTS: Sequence[Hint] = (
    ("figures/curves.png", "losses over the run"),
    ("figures", "all pictures"),
    ("tables", "each class"),
)
AFTER_PRETRAINING: Sequence[Hint] = (
    ("--stage probe --init_from {run}{tasks}", "how good are its features?"),
    ("--stage finetune --init_from {run}{tasks}", "train the tasks from it"),
    ("--stage reconstruct --init_from {run}", "more pictures of repairs"),
)
AFTER_TASKS: Sequence[Hint] = (
    ("--stage predict --init_from {run} --predict.images PATH", "what is in these pictures?"),
    ("--stage export --init_from {run}", "take it away: timm, ONNX, torch.export"),
)
