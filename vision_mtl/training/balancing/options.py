"""The options of `balance`, and the names it takes. Imports nothing heavy, so that mistakes are answered at once."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.registry import Registry

SMOOTHED = "CRMOGMWeighting"  # smooths another aggregator's weights over time; takes that one's name as `weighting`
BASES = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How the losses of several objectives become one gradient on what they share."""

    name: str = "equal"
    """Equal, fixed, uncertainty, dwa, or an aggregator of torchjd: UPGrad, PCGrad, MGDA, ..."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The method's own options, for example c of CAGrad."""
    shared: Literal["all", "last"] = "all"
    """Whose gradients are compared and combined: the whole backbone's, or those of its last stage alone, which takes
    less memory; the rest of the backbone then gets their sum."""
    conflicts_every_steps: int = 0
    """Steps between measurements of the cosines of the objectives' gradients; 0: never."""

    def __post_init__(self) -> None:
        if self.name not in balance_names():
            raise unknown("balance", self.name, balance_names())
        if self.conflicts_every_steps < 0:
            raise UserError(
                f"balance.conflicts_every_steps must be 0 (never) or more; found {self.conflicts_every_steps}."
            )


def balance_names() -> list[str]:
    """What `balance.name` may be: our methods, then torchjd's aggregators."""
    ours: Registry[Any] = Registry("balance", "vision_mtl.training.balancing")
    return [*ours.names(), *aggregator_names()]


def aggregator_names() -> list[str]:
    """The class names of torchjd's aggregators, read from its source text; none if it is not installed.

    Its bare weightings are left out: each has an aggregator of its own, but for `SMOOTHED`, which is kept, and MoDo and
    SDMGrad, which need gradients of two independent batches a step and are wrong on one.
    """
    spec = importlib.util.find_spec("torchjd")
    if spec is None or not spec.submodule_search_locations:
        return []
    text = (Path(next(iter(spec.submodule_search_locations))) / "aggregation/__init__.py").read_text("utf-8")
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names}
    return sorted(n for n in names if n == SMOOTHED or (n not in BASES and not n.endswith("Weighting")))
