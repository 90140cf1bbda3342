"""A torchjd aggregator by its class name: found, its arguments checked, built.

Arguments come from `balance.kwargs`; vectors are lists of one number for each objective, in the objectives' order.
`CRMOGMWeighting` takes the arguments of the aggregator that it smooths beside its own.
"""
# T objectives

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd import aggregation
from torchjd.aggregation import Aggregator, CRMOGMWeighting, WeightedAggregator

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.training.balancing.options import SMOOTHED, aggregator_names

NOT_OPTIONS = ("f", "projector")  # functions and objects, which no config can hold
# values to show in an error: CAGrad's c is the paper's for supervised tasks, the others are the smallest sensible ones
EXAMPLES = {"c": "0.4", "alpha": "1.0", "n_byzantine": "1", "trim_number": "1", "weighting": "UPGrad"}


def build_aggregator(
    name: str, kwargs: Mapping[str, Any], objectives: Sequence[str], present: Sequence[int] | None = None
) -> Aggregator:
    """The aggregator `name` for rows in the order of `objectives`, or for those `present` (indices) alone.

    Raises `UserError` for an unknown name, an unknown, missing or unfit argument, or a package that is not installed.
    """
    if name not in aggregator_names():
        raise unknown("aggregator of torchjd", name, aggregator_names())
    rows = range(len(objectives)) if present is None else present
    component: Callable[..., Aggregator] = getattr(aggregation, name)
    if name == SMOOTHED and "weighting" in kwargs:
        kwargs, component = _smoothed(kwargs, objectives, rows)
    arguments = _arguments(name, component, kwargs, objectives, rows)
    try:
        return component(**arguments)
    except ImportError as error:
        missing = re.findall(r"'([\w-]+)'", str(error).partition(" to be installed")[0]) or [str(error)]
        raise UserError(f"balance {name!r} needs packages that are missing: pip install {' '.join(missing)}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"balance.kwargs of {name!r}: {error}") from error


def _smoothed(
    kwargs: Mapping[str, Any], objectives: Sequence[str], rows: Sequence[int]
) -> tuple[dict[str, Any], Callable[..., Aggregator]]:
    """What smooths the aggregator named `weighting`, and its arguments; all others are that aggregator's own."""
    own = ("alpha", "initial_weights")
    inner = str(kwargs["weighting"])
    others = {key: value for key, value in kwargs.items() if key not in (*own, "weighting")}
    smoothed = build_aggregator(inner, others, objectives, rows)
    if not isinstance(smoothed, WeightedAggregator):
        raise UserError(f"balance.kwargs.weighting: {inner!r} has no weights to smooth.")

    def build(alpha: float = 0.9, initial_weights: Tensor | None = None) -> Aggregator:  # 0.9: torchjd's default
        return WeightedAggregator(CRMOGMWeighting(smoothed.weighting, alpha, initial_weights))

    return {key: value for key, value in kwargs.items() if key in own}, build


def _arguments(
    name: str,
    component: Callable[..., Aggregator],
    kwargs: Mapping[str, Any],
    objectives: Sequence[str],
    rows: Sequence[int],
) -> dict[str, Any]:
    """The constructor's arguments, `n_tasks` filled in and lists made vectors."""
    takes = {k: p for k, p in inspect.signature(component).parameters.items() if k not in NOT_OPTIONS}
    takes.pop("n_tasks", None)
    for given in kwargs:
        if given not in takes:
            raise unknown(f"argument of {name}", given, takes)
    missing = [key for key, p in takes.items() if p.default is p.empty and key not in kwargs]
    if missing:
        ones = "[" + ",".join("1" for _ in objectives) + "]"
        ways = " ".join(f"--balance.kwargs.{key} {EXAMPLES.get(key, ones)}" for key in missing)
        raise UserError(f"balance {name!r} needs {' and '.join(missing)}: give for example {ways}")
    values = {key: _vector(key, takes[key], value, objectives, rows) for key, value in kwargs.items()}
    if "n_tasks" in inspect.signature(component).parameters:
        values["n_tasks"] = len(rows)
    return values


def _vector(key: str, parameter: inspect.Parameter, value: Any, objectives: Sequence[str], rows: Sequence[int]) -> Any:
    """A list for an argument that may be a tensor -> the numbers of the rows, (len(rows),); anything else as it is."""
    annotation = str(parameter.annotation)
    if "Tensor" not in annotation or value is None or ("float" in annotation and not isinstance(value, list)):
        return value
    numbers = value if isinstance(value, list | tuple) else []
    if len(numbers) != len(objectives) or not all(isinstance(v, int | float) for v in numbers):
        raise UserError(
            f"balance.kwargs.{key} must be a list of {len(objectives)} numbers, for {', '.join(objectives)}; "
            f"found {value!r}."
        )
    return torch.tensor([float(numbers[row]) for row in rows])
