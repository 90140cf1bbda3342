"""`torch.compile` for the modules whose input shapes do not depend on the assignment of pretexts to images.

A mixture splits every batch at different rows, and compiled code that sees the split is recompiled for each one. So
backbone and decoder are compiled separately: their inputs are whole batches or, in a plain ViT, groups of images with
the same number of visible tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")


def compile_modules(*modules: nn.Module) -> None:
    """Turn on compilation in training for modules that call `maybe_compiled`."""
    for module in modules:
        module.is_compiled = True  # type: ignore[assignment]  # a flag, which nn.Module's stub does not know


def maybe_compiled(module: nn.Module, function: Callable[P, R]) -> Callable[P, R]:
    """Return the module-level `function` that does the work of `module`, compiled if that is turned on.

    Only training is compiled: each batch size of scoring would need a compilation of its own for a handful of steps.
    """
    compiled = getattr(module, "is_compiled", False) and module.training and torch.is_grad_enabled()
    return _compiled(function) if compiled else function


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)
