"""Any aggregator of torchjd: the objectives' gradients on the shared parameters, combined into one direction.

Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024, https://arxiv.org/abs/2406.16232; each
aggregator's own paper is named in torchjd's documentation.

One backward pass an objective fills one row, so no more than one objective's gradient exists beside the rows. The same
pass leaves in `.grad` of everything that is not shared the plain sum of the objectives' gradients: a head sees its own.
Differs from torchjd's own `mtl_backward`: it aggregates over the whole step (accumulated parts, processes), and an
objective that is absent from the step takes no part in the compromise, rather than vote with a row of zeros. Those that
keep a state over time see zeros there, for their rows must stay the same. All of that state is saved, also what torchjd
does not hold in buffers (`MEMORY`).
"""
# T objectives, P shared parameters (scalars)

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchjd import Stateful
from torchjd.aggregation import Aggregator, WeightedAggregator

from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing.construct import build_aggregator
from vision_mtl.training.balancing.contract import Backward, Balancing, LossTerm
from vision_mtl.training.balancing.gradient_matrix import GradientMatrix
from vision_mtl.training.balancing.processes import average_gradients, take_from_first

MEMORY = {  # numbers and arrays that torchjd's classes keep beside their buffers, and `reset` clears
    "_NashMTLWeighting": ("step", "prvs_alpha", "normalization_factor"),
    "ExcessMTLWeighting": ("_n_steps",),
}


class Aggregated(Balancing):
    """`aggregator` is torchjd's class name, `kwargs` its arguments.

    With several processes the rows are averaged over them before they are combined, and what was drawn at random is the
    first process's. Raises `UserError` as `build_aggregator` does, and where nothing is shared.
    """

    averages_gradients: ClassVar[bool] = True

    def __init__(
        self,
        objectives: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        aggregator: str,
        kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(objectives, shared, rest)
        if not self.shared:
            raise UserError(f"balance {aggregator!r} combines gradients of shared parameters, but none is trainable.")
        self.name, self.kwargs = aggregator, dict(kwargs)
        self.aggregator = build_aggregator(aggregator, kwargs, list(self.objectives))
        self.stateful = any(isinstance(module, Stateful) for module in self.aggregator.modules())
        self._rows: GradientMatrix | None = None
        self._weights: dict[str, float] = {}
        self._loaded: dict[str, Tensor] = {}  # a checkpoint's state, until there are rows to shape it

    @property
    def rows(self) -> GradientMatrix:
        """The (T, P) buffer, allocated at the first use, on the device where the parameters are by then."""
        self._rows = self._rows or GradientMatrix(len(self.objectives), self.shared)
        return self._rows

    def weights(self) -> dict[str, float]:
        """The last step's weights of the objectives present, where the aggregator has any."""
        return dict(self._weights)

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        if any(p.grad is not None for p in self.shared):
            raise RuntimeError("shared parameters must have no gradient yet: zero_grad(set_to_none=True) before a step")
        names = list(self.objectives)
        last = list(losses)[-1]
        for name, loss in losses.items():
            backward(loss * (scale * self.objectives[name].weight), retain_graph=name != last)
            self.rows.add(names.index(name), [p.grad for p in self.shared])
            for parameter in self.shared:
                parameter.grad = None

    def _finish(self) -> None:
        self.rows.average()
        average_gradients(self.rest)
        if any(self.rows.present):
            if self.conflicts.due(int(self.step)):
                self.conflicts.record(self.rows)
            vector = self._combined()
            take_from_first(vector)
            self.rows.write(vector)
            self.rows.clear()

    def _combined(self) -> Tensor:
        """(P,): the rows made one."""
        names = list(self.objectives)
        rows = [row for row in range(len(names)) if self.stateful or self.rows.present[row]]
        matrix = self.rows.matrix if self.stateful else self.rows.compact()
        self._weights = {}
        largest = torch.linalg.vector_norm(matrix, ord=float("inf"), dim=1)
        # one objective alone has nobody to agree with; solvers die of NaN, so the loop is left to name the culprit
        if (len(rows) == 1 and not self.stateful) or not bool(largest.isfinite().all()):
            return matrix.sum(dim=0)
        whole = len(rows) == len(names)
        aggregator = self.aggregator if whole else build_aggregator(self.name, self.kwargs, names, rows)
        self._restore(matrix)
        try:
            vector, weights = combine(aggregator, matrix)
        except ValueError as error:
            raise UserError(f"balance {self.name!r} failed on {len(rows)} objectives: {error}") from error
        self._weights = dict(zip([names[row] for row in rows], weights.tolist(), strict=False))
        return vector

    def _restore(self, matrix: Tensor) -> None:
        """Put a checkpoint's state into the aggregator, which shapes its own only when it first sees rows."""
        if not self._loaded:
            return
        with torch.random.fork_rng([matrix.device] if matrix.device.type == "cuda" else []):
            self.aggregator(matrix)  # what it draws is not drawn in the step that follows
        for path, module in self._stateful():
            for name, buffer in list(module._buffers.items()):  # one is None until the aggregator comes to it
                found = self._loaded.get(path + name)
                device = matrix.device if buffer is None else buffer.device
                setattr(module, name, None if found is None else found.to(device).clone())
            for name in MEMORY.get(type(module).__name__, ()):
                value = self._loaded[path + name].cpu().numpy()
                setattr(module, name, value.copy() if value.ndim else value.item())
        self._loaded = {}

    def _stateful(self) -> Iterator[tuple[str, nn.Module]]:
        """What of the aggregator keeps a state, after the beginning of its buffers' names."""
        for name, module in self.aggregator.named_modules():
            if isinstance(module, Stateful):
                yield f"{name}." if name else "", module

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for path, module in self._stateful():
            for name in MEMORY.get(type(module).__name__, ()):
                destination[f"{prefix}aggregator.{path}{name}"] = torch.as_tensor(getattr(module, name)).clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        own = f"{prefix}aggregator."
        # taken out: torchjd's modules have no buffer of that name yet, and would call it unexpected
        self._loaded = {key.removeprefix(own): state_dict.pop(key) for key in list(state_dict) if key.startswith(own)}
        for module in self.aggregator.modules():
            if isinstance(module, Stateful):
                module.reset()
        super()._load_from_state_dict(state_dict, prefix, *others)


def combine(aggregator: Aggregator, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (T, P) -> their aggregation (P,) and the weights (T,) that gave it; (0,) where there are none."""
    if not isinstance(aggregator, WeightedAggregator):
        return aggregator(matrix), matrix.new_zeros(0)
    seen: list[Tensor] = []
    watch = aggregator.weighting.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        vector = aggregator(matrix)
    finally:
        watch.remove()
    return vector, torch.as_tensor(seen[-1])
