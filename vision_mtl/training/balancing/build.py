"""Build a balancing by its name: one of ours, or any aggregator of torchjd."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vision_mtl.core.errors import unknown
from vision_mtl.training.balancing.contract import BALANCINGS, Balancing, LossTerm
from vision_mtl.training.balancing.options import aggregator_names, balance_names


def make_balancing(
    name: str,
    terms: Sequence[LossTerm],
    shared: Sequence[nn.Parameter],
    rest: Sequence[nn.Parameter],
    kwargs: Mapping[str, Any],
    conflicts_every_steps: int = 0,
) -> Balancing:
    """Return the balancing `name`, built with its arguments `kwargs`.

    `shared` and `rest` together are the model's parameters. Raises `UserError` for an unknown name or argument, naming
    the nearest, for a missing argument, and for a missing package.
    """
    if name in BALANCINGS.names():
        balancing = _build_own(name, terms, shared, rest, kwargs)
    elif name in aggregator_names():
        from vision_mtl.training.balancing.aggregator import Aggregated  # late: torchjd takes seconds to import

        balancing = Aggregated(terms, shared, rest, aggregator=name, kwargs=kwargs)
    else:
        raise unknown("balance", name, balance_names())
    balancing.conflicts.every_steps = conflicts_every_steps
    return balancing


def _build_own(
    name: str,
    terms: Sequence[LossTerm],
    shared: Sequence[nn.Parameter],
    rest: Sequence[nn.Parameter],
    kwargs: Mapping[str, Any],
) -> Balancing:
    parameters = inspect.signature(BALANCINGS.get(name)).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    for given in kwargs:
        if given not in known:
            raise unknown(f"option of balance {name!r}", given, known)
    return BALANCINGS.get(name)(terms, shared, rest, **kwargs)
