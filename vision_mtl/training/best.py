"""The best weights so far, judged on validation images: one set for all tasks together, and one for each task.

A task overfits at its own time, so its best epoch is its own; but what is used as one network is chosen by the mean
over tasks. Files: `best.safetensors` and `best-TASK.safetensors` beside the checkpoints.

A run that goes on has the scores of its checkpoint, so the files must be of that moment and never newer: better weights
are written under a name of their own (`flush`), and take their place (`commit`) once a checkpoint knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.checkpoint import BEST, check, read_state, read_tensors, save_weights, set_aside

ALL = ""  # the name of the set chosen for all tasks together
WAITING = "waiting-"  # before the name of a file that no checkpoint knows of yet


@dataclass
class Best:
    """`scores` holds, by task and for `ALL`, the best score and its step; higher is better, the earliest wins ties."""

    folder: Path
    per_task: bool = True  # keep a set of weights for each task as well
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    changed: set[str] = field(default_factory=set, repr=False)

    def offer(self, model: nn.Module, step: int, scores: Mapping[str, float]) -> list[str]:
        """Take the model's weights where it is better than before; returns for which tasks it is (`ALL` among them)."""
        offered = {ALL: sum(scores.values()) / len(scores), **(scores if self.per_task and len(scores) > 1 else {})}
        better = [n for n, score in offered.items() if n not in self.scores or score > self.scores[n]["score"]]
        if better:
            copy = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            for name in better:
                self.scores[name] = {"score": offered[name], "step": step}
                self.weights[name] = copy  # shared between names: never changed in place
                self.changed.add(name)
        return better

    def flush(self, description: Mapping[str, Any]) -> None:
        """Write the sets that have changed since the last time, to wait; each describes itself like a checkpoint."""
        for name in sorted(self.changed):
            state = {**description, "step": int(self.scores[name]["step"]), "best": self.scores[name]}
            save_weights(self._waiting(name), state, self.weights[name])
        self.changed.clear()

    def commit(self) -> None:
        """A checkpoint holds the present scores: the sets that wait take their place."""
        for name in self.scores:
            if self._waiting(name).exists():
                self._waiting(name).replace(self.path(name))

    def restore(self, scores: Mapping[str, Mapping[str, float]], tidy: bool = True) -> list[str]:
        """Go on from the files written with `scores`; returns what was lost of them: that is chosen anew from here.

        With `tidy` (one process of several) files of any other moment are put away.
        """
        lost = []
        for name, score in scores.items():
            path = self._file_of(name, score)
            if path is None:
                lost.append(name)
                continue
            self.scores[name], self.weights[name] = dict(score), read_tensors(path, "model")
            if tidy and path != self.path(name):
                path.replace(self.path(name))
        if tidy:
            for name in lost:
                set_aside(self.path(name))
            for waiting in self.folder.glob(f"{WAITING}*"):
                waiting.unlink()  # later than what the run goes on from: it will be found again
        return lost

    def _file_of(self, name: str, score: Mapping[str, float]) -> Path | None:
        """The file of the weights that had `score`; it may still wait if the run ended just after its checkpoint."""
        for path in (self.path(name), self._waiting(name)):
            try:
                check(path)
                if read_state(path)["best"] == score:
                    return path
            except (UserError, KeyError):
                continue
        return None

    def load(self, model: nn.Module, name: str = ALL) -> None:
        """Put the best weights for `name` into the model."""
        model.load_state_dict(self.weights[name])

    def replace(self, model: nn.Module, step: int) -> None:
        """Make the model's present weights those of all tasks together: the same ones calibrated, or the last."""
        score = self.scores.get(ALL, {}).get("score", float("nan"))
        self.scores[ALL] = {"score": score, "step": step}
        self.weights[ALL] = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        self.changed.add(ALL)

    def _waiting(self, name: str) -> Path:
        return self.folder / f"{WAITING}{self.path(name).name}"

    def path(self, name: str) -> Path:
        """The file of the weights for `name`."""
        return self.folder / (BEST if name == ALL else BEST.replace(".", f"-{name}.", 1))
