"""Warns of losses that blow up during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOW_UP = 3.0  # times the early loss: repair starts at chance and classes near ln K, so training never belongs there
EARLY = 3  # lines of metrics.jsonl that the early loss is the largest of: one batch alone scatters too much


@dataclass
class LossWatch:
    """Compares each line's mean losses with the early ones. A checkpoint holds `vars` of it."""

    early: dict[str, float] = field(default_factory=dict)
    lines: int = 0
    said: list[str] = field(default_factory=list)

    def look(self, step: int, means: Mapping[str, float]) -> list[str]:
        """Return a warning for each loss that has blown up in this line, once a run."""
        self.lines += 1
        found = []
        for name, value in means.items():
            if self.lines <= EARLY and math.isfinite(value):
                self.early[name] = max(value, self.early.get(name, 0.0))
            elif 0 < self.early.get(name, 0.0) * BLOW_UP < value and name not in self.said:
                self.said.append(name)
                found.append(
                    f"the loss of {name} has blown up: {value:.3g} at step {step}, {self.early[name]:.3g} at the "
                    "start. Lower --optim.learning_rate, or raise --optim.warmup_ratio."
                )
        return found
