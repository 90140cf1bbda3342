"""The options of `balance`, and the names that it accepts.

torchjd takes seconds to import, so it is imported only when a name is not one of our own methods.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.training.balancing.contract import BALANCINGS

Shared = Literal["all", "last"]  # the shared parameters: the backbone's, or its last stage's

SMOOTHED = "CRMOGMWeighting"  # smooths another aggregator's weights over time; takes that one's name as `weighting`
BASES = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How the losses of several tasks become one gradient on the shared parameters."""

    name: str = "equal"
    """Method: equal, fixed, uncertainty, dwa, or an aggregator of torchjd (UPGrad, PCGrad, MGDA, ...). equal: the plain
    sum, a baseline that is hard to beat."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The method's arguments, for example c of CAGrad."""
    shared: Shared = "all"
    """Parameters whose gradients an aggregator combines. all: the whole backbone; last: its last stage, which needs
    less memory, and the rest of the backbone gets the sum of the gradients."""
    conflicts_every_steps: int = 0
    """Steps between measurements of the cosines between the tasks' gradients; 0: never, as each costs a backward pass
    a task."""

    def __post_init__(self) -> None:
        if self.name not in BALANCINGS.names() and self.name not in aggregator_names():
            raise unknown("balance", self.name, balance_names())
        if self.conflicts_every_steps < 0:
            raise UserError(
                f"balance.conflicts_every_steps must be 0 (never) or more; found {self.conflicts_every_steps}."
            )


def balance_names() -> list[str]:
    """Return the values that `balance.name` may have: our methods, then torchjd's aggregators."""
    return [*BALANCINGS.names(), *aggregator_names()]


def aggregator_names() -> list[str]:
    """Return the class names of torchjd's aggregators; none if it is not installed.

    Bare weightings are left out: each belongs to an aggregator. `SMOOTHED` has no aggregator and is kept. MoDo and
    SDMGrad have none either, but need gradients of two independent batches a step and are wrong on one.
    """
    if importlib.util.find_spec("torchjd") is None:
        return []
    from torchjd import aggregation  # late: it takes seconds to import

    names = [name for name in aggregation.__all__ if name not in BASES and not name.endswith("Weighting")]
    return sorted([*names, SMOOTHED])
