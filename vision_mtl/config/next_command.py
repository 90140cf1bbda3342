"""Commands to suggest at the end of a run, and the conditions under which they make sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task

Result = Mapping[str, Any]  # the content of result.json


class Config(Protocol):
    """What a condition reads of a finished run's config."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name."""

    @property
    def pretexts(self) -> Mapping[str, Any]:
        """The pretexts by name."""

    @property
    def options(self) -> Any:
        """The stage's own options."""

    @property
    def init_from(self) -> str | None:
        """The run or checkpoint that the run started from."""


Condition = Callable[[Config, Result], bool]


@dataclass(frozen=True)
class NextCommand:
    """A stage to run next, its purpose and its options.

    In the options, {run} is the finished run's folder and {start} its init_from. The options with which the stage sees
    the same images are added (`config/words.py`).
    """

    stage: str
    purpose: str
    options: Mapping[str, str] = field(default_factory=dict)
    when: Condition = lambda config, result: True


def has_tasks(config: Config, result: Result) -> bool:
    """Return True if the run has a task."""
    return bool(config.tasks)


def has_no_task(config: Config, result: Result) -> bool:
    """Return True if the run has images without labels only."""
    return not config.tasks


def has_probed_task(config: Config, result: Result) -> bool:
    """Return True if a linear probe exists for one of the run's tasks."""
    return any(label_kind(task.kind).has_probe for task in config.tasks.values())


def can_draw_repairs(config: Config, result: Result) -> bool:
    """Return True if a pretext of the run repairs images, and there are test images to draw."""
    repairs = any(pretext.repairs and pretext.weight > 0 for pretext in config.pretexts.values())
    return repairs and any(splits["test"] for splits in result["data"].get("sources", {}).values())


def has_selected_damage(config: Config, result: Result) -> bool:
    """Return True if a discovery selected something; runs from before it was recorded count as such."""
    return result["metrics"].get("selected_ratio", 1.0) > 0


def has_selected_no_damage(config: Config, result: Result) -> bool:
    """Return True if a discovery selected nothing."""
    return not has_selected_damage(config, result)


def has_heads(config: Config, result: Result) -> bool:
    """Return True if a probe saved its backbone with a head for each task."""
    return bool(vars(config.options)["heads"])


def starts_without_heads(config: Config, result: Result) -> bool:
    """Return True if a probe of a run saved nothing, so that the next stage starts where it did."""
    return config.init_from is not None and not has_heads(config, result)
