"""The role of a stage in an arm of a study. Each stage declares its own; a study receives them by stage name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ArmRole:
    """What a study needs to know of a stage."""

    judged: bool = False
    """Whether an arm may end in the stage: its scores on test images are then the arm's."""
    gives_weights: bool = False
    """Whether the arm's next stage starts from this one's weights."""
    noun: str = "run"
    """What a run of the stage is called in a verdict: one pretraining, one discovery."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options in every arm, as in a config file. Budgets are steps, because seconds depend on the machine's load."""
    fraction_option: str | None = None
    """The stage's option for the label fraction, if each fraction needs a run."""
    fractions_option: str | None = None
    """The stage's option for a list of label fractions, if one run covers all of them."""
    fixed_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the stage that a study sets, whatever the arm's options are."""
    method: str = "head"
    """Method in `test_instances.parquet` whose rows are the arm's scores."""
    references: tuple[str, ...] = ()
    """Further methods there, whose scores the report shows beside the arm's."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Figures of one of its runs to show in the report: file name without suffix -> title."""


Roles = Mapping[str, ArmRole]
