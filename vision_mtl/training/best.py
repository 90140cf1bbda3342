"""The best weights so far by validation score: one set for all tasks together, and one for each task.

Tasks overfit at different times, so each has its own best step; the weights used as one model are chosen by the mean
over all tasks. A task with too few validation images chooses nothing, because its choice would be luck: its latest
weights are kept, and so are those of the whole model, which tasks left out of the mean would pay for
(docs/statistics.md). Files: `best.safetensors` and `best-TASK.safetensors` in the folder of checkpoints.

A resumed run restores the scores in its checkpoint, so the files must never be newer than the checkpoint. New best
weights are therefore written as pending files first (`flush`), which replace the old files (`commit`) once a checkpoint
holds their scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import file_stem
from vision_mtl.training.checkpoint import BEST, check, read_state, read_tensors, save_weights, set_aside

ALL = ""  # the name of the set chosen for all tasks together
PENDING = "waiting-"  # prefix of a file whose score no checkpoint holds yet


@dataclass
class Best:
    """`scores` holds the best score and its step for each task and for `ALL`; higher is better, the latest wins ties.

    With `per_task`, every task has a set of weights in addition to the set for `ALL`.
    """

    folder: Path
    per_task: bool = True
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    changed: set[str] = field(default_factory=set, repr=False)

    def offer(
        self, model: nn.Module, step: int, scores: Mapping[str, float], choosing: Collection[str] | None = None
    ) -> list[str]:
        """Keep a copy of the model's weights where its score is the best so far; return the names, `ALL` included.

        Only the sets `choosing` (None: all) are chosen by their scores; the others are always replaced.
        """
        offered = {ALL: sum(scores.values()) / len(scores), **(scores if self.per_task and len(scores) > 1 else {})}
        beaten = {name: kept["score"] for name, kept in self.scores.items() if choosing is None or name in choosing}
        better = [name for name, score in offered.items() if name not in beaten or score >= beaten[name]]
        if better:
            copy = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            for name in better:
                self.scores[name] = {"score": offered[name], "step": step}
                self.weights[name] = copy  # shared between names: never changed in place
                self.changed.add(name)
        return better

    def flush(self, description: Mapping[str, Any]) -> None:
        """Write the sets that changed since the last call as pending files, with `description` in their state."""
        for name in sorted(self.changed):
            state = {**description, "step": int(self.scores[name]["step"]), "best": self.scores[name]}
            save_weights(self._pending(name), state, self.weights[name])
        self.changed.clear()

    def commit(self) -> None:
        """Replace the files by the pending ones, after a checkpoint has saved the present scores."""
        for name in self.scores:
            if self._pending(name).exists():
                self._pending(name).replace(self.path(name))

    def restore(self, scores: Mapping[str, Mapping[str, float]], tidy: bool = True) -> list[str]:
        """Load the files that belong to a checkpoint's `scores`; return the names whose files are lost.

        A lost set starts without a score, so the next offer replaces it. With `tidy` (in one of several processes only)
        pending files are deleted and the files of lost sets set aside.
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
            for pending in self.folder.glob(f"{PENDING}*"):
                pending.unlink()  # newer than the checkpoint: the resumed run finds the same weights again
        return lost

    def _file_of(self, name: str, score: Mapping[str, float]) -> Path | None:
        """Return the file of the weights with `score`; still pending if the run ended right after its checkpoint."""
        for path in (self.path(name), self._pending(name)):
            try:
                check(path)
                if read_state(path)["best"] == score:
                    return path
            except (UserError, KeyError):
                continue
        return None

    def load(self, model: nn.Module, name: str = ALL) -> None:
        """Load the best weights for `name` into the model."""
        model.load_state_dict(self.weights[name])

    def replace(self, model: nn.Module, step: int) -> None:
        """Keep the model's present weights as the set for `ALL`, with its old score: calibrated, or simply the last."""
        score = self.scores.get(ALL, {}).get("score", float("nan"))
        self.scores[ALL] = {"score": score, "step": step}
        self.weights[ALL] = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        self.changed.add(ALL)

    def _pending(self, name: str) -> Path:
        return self.folder / f"{PENDING}{self.path(name).name}"

    def path(self, name: str) -> Path:
        """Return the file of the weights for `name`."""
        return self.folder / (BEST if name == ALL else BEST.replace(".", f"-{file_stem(name)}.", 1))
