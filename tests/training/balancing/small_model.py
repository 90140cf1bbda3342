"""A trunk with three heads, small enough to check by hand, and a step like the training loop's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import Balancing, LossTerm
from vision_mtl.training.balancing.shared import other_parameters

NAMES = ("digits", "cars", "blur")


class Model(nn.Module):
    """(B, 5) -> one number a row from each head, through a shared trunk with one unused parameter."""

    def __init__(self, names: Sequence[str] = NAMES, dtype: torch.dtype = torch.float32, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3))
        self.trunk.register_parameter("unused", nn.Parameter(torch.ones(2)))
        self.heads = nn.ModuleDict({name: nn.Linear(3, 1) for name in names})
        self.to(dtype)

    def losses(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the squared error of each task on its rows."""
        return {name: (self.heads[name](self.trunk(x)) - 1).square().mean() for name, x in rows.items()}

    def forward(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.losses(rows)

    def gradients(self) -> dict[str, Tensor | None]:
        return {name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()}


def balance(
    model: Model, name: str = "equal", task_weights: Mapping[str, float] | None = None, **kwargs: Any
) -> Balancing:
    """Return a balancing over the model's heads; `blur` is a regression."""
    every = kwargs.pop("every", 0)
    given = {name: (task_weights or {}).get(name, 1.0) for name, _ in model.heads.named_children()}
    terms = [LossTerm(name=name, weight=w, regression=name == "blur") for name, w in given.items()]
    shared = list(model.trunk.parameters())
    return make_balancing(name, terms, shared, other_parameters(model, shared), kwargs, every)


def step(model: Model, balancing: Balancing, *micro_batches: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return the gradients after a step of equally large micro-batches."""
    for module in (model, balancing):
        module.zero_grad(set_to_none=True)
    for rows in micro_batches:
        balancing.add(model.losses(rows), 1 / len(micro_batches), torch.Tensor.backward)
    balancing.finish()
    return model.gradients()


def batch(names: Sequence[str] = NAMES, seed: int = 0, rows: int = 4, dtype: torch.dtype = torch.float32) -> dict:
    """Return disjoint rows for each task."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, 5, generator=generator, dtype=dtype) for name in names}


def flat(gradients: Mapping[str, Tensor | None], prefix: str = "trunk") -> Tensor:
    return torch.cat([g.flatten() for n, g in gradients.items() if n.startswith(prefix) and g is not None])
