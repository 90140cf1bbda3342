"""Warns of losses that blow up during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vision_mtl.training.consistency import CONSISTENCY

# times the early loss: repair starts at its chance loss and classes near ln K, so a healthy run never gets there
BLOW_UP = 3.0
# begins near 0, because few predictions are confident, and rises with them
RISING = f"{CONSISTENCY}."
EARLY = 3  # lines of metrics.jsonl whose largest value is the early loss: a single line is too noisy


@dataclass
class LossWatch:
    """Compares the mean losses of each log line with the early ones. Checkpoints hold its `vars`."""

    early: dict[str, float] = field(default_factory=dict)
    lines: int = 0
    said: list[str] = field(default_factory=list)

    def look(self, step: int, means: Mapping[str, float]) -> list[str]:
        """Return a warning for each loss that has blown up in this line, once for each loss and run."""
        self.lines += 1
        found = []
        for name, value in means.items():
            if self.lines <= EARLY and math.isfinite(value):
                self.early[name] = max(value, self.early.get(name, 0.0))
            elif name.startswith(RISING):
                continue
            elif 0 < self.early.get(name, 0.0) * BLOW_UP < value and name not in self.said:
                self.said.append(name)
                found.append(
                    f"the loss of {name} has blown up: {value:.3g} at step {step}, {self.early[name]:.3g} at the "
                    "start. Lower --optim.learning_rate, or raise --optim.warmup_ratio."
                )
        return found
