"""What a stage is in an arm of a study. Stages declare it; the study is handed the roles by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ArmRole:
    """A stage's part in an arm."""

    judged: bool = False
    """An arm may end in it: its test images are what the arm is judged by."""
    gives_weights: bool = False
    """The next stage of the arm starts from its weights."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options in every arm, as in a config; budgets are steps, as seconds depend on what else runs."""
    fraction_option: str | None = None
    """The stage's own option that takes the label fraction, where each needs a run."""
    fractions_option: str | None = None
    """The stage's own option that lists all label fractions, where one run serves them all."""
    fixed_options: Mapping[str, Any] = field(default_factory=dict)
    """The stage's own options that a study sets whatever an arm says."""
    method: str = "head"
    """Which rows of `test_instances.parquet` an arm is judged by."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Figures of one of its runs that the report shows, with their captions."""


Roles = Mapping[str, ArmRole]
