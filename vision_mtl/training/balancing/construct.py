"""Build a torchjd aggregator from its class name and checked arguments.

Arguments come from `balance.kwargs`; a vector is a list of one number for each loss, in the order of the losses.
`CRMOGMWeighting` accepts the arguments of the aggregator that it smooths in addition to its own.
"""
# T losses

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

NOT_OPTIONS = ("f", "projector")  # functions and objects, which a config cannot hold
# shown in error messages: CAGrad's c is the paper's for supervised tasks, the others are the smallest sensible values
EXAMPLES = {"c": "0.4", "alpha": "1.0", "n_byzantine": "1", "trim_number": "1", "weighting": "UPGrad"}


def build_aggregator(
    name: str, kwargs: Mapping[str, Any], names: Sequence[str], present: Sequence[int] | None = None
) -> Aggregator:
    """Return the aggregator `name` for losses called `names`, in this order, or for the indices `present` of them.

    Raises `UserError` for an unknown aggregator, an unknown, missing or invalid argument, and a missing package.
    """
    if name not in aggregator_names():
        raise unknown("aggregator of torchjd", name, aggregator_names())
    rows = range(len(names)) if present is None else present
    build: Callable[..., Aggregator] = getattr(aggregation, name)
    if name == SMOOTHED and "weighting" in kwargs:
        kwargs, build = _smoothed(kwargs, names, rows)
    arguments = _arguments(name, build, kwargs, names, rows)
    try:
        return build(**arguments)
    except ImportError as error:
        missing = re.findall(r"'([\w-]+)'", str(error).partition(" to be installed")[0]) or [str(error)]
        raise UserError(f"balance {name!r} needs packages that are missing: pip install {' '.join(missing)}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"balance.kwargs of {name!r}: {error}") from error


def _smoothed(
    kwargs: Mapping[str, Any], names: Sequence[str], rows: Sequence[int]
) -> tuple[dict[str, Any], Callable[..., Aggregator]]:
    """Return the smoothing's arguments and its constructor; all other arguments go to the aggregator `weighting`."""
    own = ("alpha", "initial_weights")
    inner = str(kwargs["weighting"])
    others = {key: value for key, value in kwargs.items() if key not in (*own, "weighting")}
    smoothed = build_aggregator(inner, others, names, rows)
    if not isinstance(smoothed, WeightedAggregator):
        raise UserError(f"balance.kwargs.weighting: {inner!r} has no weights to smooth.")

    def build(alpha: float = 0.9, initial_weights: Tensor | None = None) -> Aggregator:  # 0.9: torchjd's default
        return WeightedAggregator(CRMOGMWeighting(smoothed.weighting, alpha, initial_weights))

    return {key: value for key, value in kwargs.items() if key in own}, build


def _arguments(
    name: str,
    build: Callable[..., Aggregator],
    kwargs: Mapping[str, Any],
    names: Sequence[str],
    rows: Sequence[int],
) -> dict[str, Any]:
    """Return the constructor's arguments, with lists as vectors and `n_tasks` set."""
    takes = {k: p for k, p in inspect.signature(build).parameters.items() if k not in NOT_OPTIONS}
    takes.pop("n_tasks", None)
    for given in kwargs:
        if given not in takes:
            raise unknown(f"argument of {name}", given, takes)
    missing = [key for key, p in takes.items() if p.default is p.empty and key not in kwargs]
    if missing:
        ones = "[" + ",".join("1" for _ in names) + "]"
        ways = " ".join(f"--balance.kwargs.{key} {EXAMPLES.get(key, ones)}" for key in missing)
        raise UserError(f"balance {name!r} needs {' and '.join(missing)}: give for example {ways}")
    values = {key: _vector(key, takes[key], value, names, rows) for key, value in kwargs.items()}
    if "n_tasks" in inspect.signature(build).parameters:
        values["n_tasks"] = len(rows)
    return values


def _vector(key: str, parameter: inspect.Parameter, value: Any, names: Sequence[str], rows: Sequence[int]) -> Any:
    """Return the numbers of `rows`, (len(rows),), if the argument may be a tensor; else `value` as it is."""
    annotation = str(parameter.annotation)
    if "Tensor" not in annotation or value is None or ("float" in annotation and not isinstance(value, list)):
        return value
    numbers = value if isinstance(value, list | tuple) else []
    if len(numbers) != len(names) or not all(isinstance(v, int | float) for v in numbers):
        raise UserError(
            f"balance.kwargs.{key} must be a list of {len(names)} numbers, for {', '.join(names)}; found {value!r}."
        )
    return torch.tensor([float(numbers[row]) for row in rows])
