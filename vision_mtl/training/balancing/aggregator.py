"""Combine the gradients of several losses on the shared parameters with any aggregator of torchjd.

Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024, https://arxiv.org/abs/2406.16232; each
aggregator's own paper is named in torchjd's documentation.

Each loss gets its own backward pass, which fills one row of the gradient matrix, so memory holds one gradient in
addition to the matrix. Parameters that are not shared accumulate the plain sum of the gradients: a head gets the
gradient of its own task.
Differs from torchjd's own `mtl_backward`: it aggregates over the whole step (all micro-batches and processes), and a
loss that is absent from the step is left out of the aggregation rather than given a row of zeros. Aggregators that keep
a state over time do get a row of zeros, because their rows must stay the same. Checkpoints hold all of that state,
including what torchjd does not keep in buffers (`MEMORY`).
"""
# T losses, P shared parameters (scalars)

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

MEMORY = {  # state that torchjd's classes keep outside of their buffers, and that `reset` clears
    "_NashMTLWeighting": ("step", "prvs_alpha", "normalization_factor"),
    "ExcessMTLWeighting": ("_n_steps",),
}


class Aggregated(Balancing):
    """Balances by torchjd's class `aggregator`, built with the arguments `kwargs`.

    With several processes the gradient matrix is averaged over them before it is aggregated, and where the aggregator
    draws at random, every process uses the first one's result. Raises `UserError` as `build_aggregator` does, and where
    nothing is shared.
    """

    averages_gradients: ClassVar[bool] = True

    def __init__(
        self,
        terms: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        aggregator: str,
        kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(terms, shared, rest)
        if not self.shared:
            raise UserError(f"balance {aggregator!r} combines gradients of shared parameters, but none is trainable.")
        self.name, self.kwargs = aggregator, dict(kwargs)
        self.aggregator = build_aggregator(aggregator, kwargs, list(self.terms))
        self.is_stateful = any(isinstance(module, Stateful) for module in self.aggregator.modules())
        self._gradients: GradientMatrix | None = None
        self._weights: dict[str, float] = {}
        self._loaded: dict[str, Tensor] = {}  # a checkpoint's state, until the first gradients give it a shape

    @property
    def gradients(self) -> GradientMatrix:
        """The (T, P) buffer, allocated at its first use, when the parameters are on their device."""
        self._gradients = self._gradients or GradientMatrix(len(self.terms), self.shared)
        return self._gradients

    def weights(self) -> dict[str, float]:
        """Return the last step's weights of the losses present; empty if the aggregator has none."""
        return dict(self._weights)

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        if any(p.grad is not None for p in self.shared):
            raise RuntimeError("shared parameters must have no gradient yet: zero_grad(set_to_none=True) before a step")
        names = list(self.terms)
        last = list(losses)[-1]
        for name, loss in losses.items():
            backward(loss * (scale * self.terms[name].weight), retain_graph=name != last)
            self.gradients.add(names.index(name), [p.grad for p in self.shared])
            for parameter in self.shared:
                parameter.grad = None

    def _finish(self) -> None:
        self.gradients.average()
        average_gradients(self.rest)
        if any(self.gradients.present):
            if self.conflicts.due(int(self.step)):
                self.conflicts.record(self.gradients)
            vector = self._aggregate()
            take_from_first(vector)
            self.gradients.write(vector)
            self.gradients.clear()

    def _aggregate(self) -> Tensor:
        """Return the aggregation (P,) of the gradients, and keep its weights."""
        names = list(self.terms)
        rows = [row for row in range(len(names)) if self.is_stateful or self.gradients.present[row]]
        matrix = self.gradients.matrix if self.is_stateful else self.gradients.compact()
        self._weights = {}
        largest = torch.linalg.vector_norm(matrix, ord=float("inf"), dim=1)
        # a single row needs no aggregation; solvers fail on NaN, and the loop reports which loss is not finite
        if (len(rows) == 1 and not self.is_stateful) or not bool(largest.isfinite().all()):
            return matrix.sum(dim=0)
        is_complete = len(rows) == len(names)
        aggregator = self.aggregator if is_complete else build_aggregator(self.name, self.kwargs, names, rows)
        self._restore(matrix)
        try:
            vector, weights = combine(aggregator, matrix)
        except ValueError as error:
            raise UserError(f"balance {self.name!r} failed on {len(rows)} losses: {error}") from error
        self._weights = dict(zip([names[row] for row in rows], weights.tolist(), strict=False))
        return vector

    def _restore(self, matrix: Tensor) -> None:
        """Load a checkpoint's state into the aggregator, which allocates its own when it first sees gradients."""
        if not self._loaded:
            return
        with torch.random.fork_rng([matrix.device] if matrix.device.type == "cuda" else []):
            self.aggregator(matrix)  # its random draws must not change those of the step
        for path, module in self._stateful_modules():
            for name, buffer in list(module._buffers.items()):  # a buffer is None until the aggregator needs it
                found = self._loaded.get(path + name)
                device = matrix.device if buffer is None else buffer.device
                setattr(module, name, None if found is None else found.to(device).clone())
            for name in MEMORY.get(type(module).__name__, ()):
                value = self._loaded[path + name].cpu().numpy()
                setattr(module, name, value.copy() if value.ndim else value.item())
        self._loaded = {}

    def _stateful_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the aggregator's modules with a state, each with the prefix of its buffers' names."""
        modules: Iterator[tuple[str, nn.Module]] = self.aggregator.named_modules()
        for name, module in modules:
            if isinstance(module, Stateful):
                yield f"{name}." if name else "", module

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for path, module in self._stateful_modules():
            for name in MEMORY.get(type(module).__name__, ()):
                destination[f"{prefix}aggregator.{path}{name}"] = torch.as_tensor(getattr(module, name)).clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        own = f"{prefix}aggregator."
        # removed here: torchjd's modules do not have these buffers yet and would report them as unexpected
        self._loaded = {key.removeprefix(own): state_dict.pop(key) for key in list(state_dict) if key.startswith(own)}
        for module in self.aggregator.modules():
            if isinstance(module, Stateful):
                module.reset()
        super()._load_from_state_dict(state_dict, prefix, *others)


def combine(aggregator: Aggregator, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the aggregation (P,) of gradients (T, P) and the weights (T,) that gave it, or (0,) if it has none."""
    if not isinstance(aggregator, WeightedAggregator):
        return aggregator(matrix), matrix.new_zeros(0)
    seen: list[Tensor] = []
    watch = aggregator.weighting.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        vector = aggregator(matrix)
    finally:
        watch.remove()
    return vector, torch.as_tensor(seen[-1])
