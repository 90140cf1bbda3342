"""`torch.compile` for the parts of a step whose shapes do not depend on who got which pretext.

A mixture cuts every batch at other rows, and code that sees these cuts is compiled again for each of them. So backbone
and decoder are compiled one by one: both see whole batches, or in a plain ViT so many images of so many tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")


def compile_parts(*parts: nn.Module) -> None:
    """Have modules that go through `maybe_compiled` be compiled while they are trained."""
    for part in parts:
        part.is_compiled = True  # type: ignore[assignment]  # a flag, which nn.Module's stub does not know


def maybe_compiled(part: nn.Module, function: Callable[P, R]) -> Callable[P, R]:
    """The function of module level that does `part`'s work, compiled where that was asked for.

    Only in training: scores are of batches of other sizes, each of which would be compiled for a handful of steps.
    """
    asked = getattr(part, "is_compiled", False) and part.training and torch.is_grad_enabled()
    return _compiled(function) if asked else function


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)
