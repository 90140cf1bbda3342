"""Read a file of weights without running its code, and find the tensors in it that fit a model."""
# I input channels of a convolution

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from vision_mtl.core.errors import UserError

StateDict = dict[str, Tensor]
SHOWN = 3  # names in a message
COLOURS = 3  # channels of the images that published weights were trained on
AVERAGED = ("ema", "average", "teacher")  # of equal fits, the one in a container or under a prefix with such a name
NO_TORCH_FILE = {
    b"<": "it is a web page",
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file itself",
}


@dataclass(frozen=True)
class Fit:
    """The tensors of a file that fit a model, and what is left.

    `misfits` maps each floating-point tensor of the model that the file lacks to the reason, `unused` are the file's
    other tensors, less the classifier's. `channels` is set if the first convolution has other input channels than can
    be adapted: its name, theirs, and the model's. `below` is the container and prefix.
    """

    tensors: StateDict
    misfits: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    channels: tuple[str, int, int] | None = None
    below: str = ""

    @classmethod
    def of(cls, model: nn.Module, state: Mapping[str, Tensor], below: str = "", others: Sequence[str] = ()) -> Fit:
        """Return how `state`, whose names are the model's, fits; `others` are further tensors that are not used."""
        cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
        tensors, misfits, channels = {}, {}, None
        for key, own in model.state_dict().items():
            value = state.get(key)
            if value is not None and _is_input_of(key, cfg, own, value) and own.shape != value.shape:
                if value.shape[1] == COLOURS:
                    value = adapt_input_conv(own.shape[1], value)
                else:
                    channels = (key, value.shape[1], own.shape[1])
            if value is not None and value.shape == own.shape:
                tensors[key] = value
            elif own.is_floating_point():
                theirs = "not in the file" if value is None else f"{tuple(value.shape)} in the file"
                misfits[key] = f"{theirs}, {tuple(own.shape)} in the backbone"
        classifiers = cfg.get("classifier") or ()
        heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        unused = [key for key in state if key not in tensors and not key.startswith(tuple(f"{h}." for h in heads))]
        return cls(tensors, misfits, [*unused, *others], channels, below)


def read_state_dicts(path: Path) -> dict[str, StateDict]:
    """Return every mapping of names to tensors in a file, by the names of the containers that it lies in.

    Raises `UserError` for a file that is damaged, holds none, or would have to run code.
    """
    with path.open("rb") as file:
        head = file.read(64)
    content = _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path, head)
    found = dict(_mappings(content))
    if not found:
        raise UserError(f"the weights file {str(path)!r} must hold a state dict; found {_described(content)}.")
    return found


def best_fit(model: nn.Module, containers: Mapping[str, StateDict]) -> Fit:
    """Return the fit of the mapping, and of the prefix of its names, under which most tensors fit.

    Of equal ones the averaged weights are taken, else the first.
    """
    smallest = len(list(model.parameters())) / 2
    large = {name: state for name, state in containers.items() if len(state) >= smallest}
    fits = [
        _converted_fit(model, state, name, start)
        for name, state in (large or containers).items()
        for start in _prefixes(state, smallest)
    ]
    return max(fits, key=lambda fit: (len(fit.tensors), any(word in fit.below for word in AVERAGED)))


def _converted_fit(model: nn.Module, whole: StateDict, name: str, start: str) -> Fit:
    """Return how the tensors under the prefix `start` fit, as they are or as timm converts them, whichever is better.

    timm converts names of other programs, and positions of another image size.
    """
    state = {key.removeprefix(start): value for key, value in whole.items() if key.startswith(start)}
    others = [key for key in whole if not key.startswith(start)]
    fit = Fit.of(model, state, name + start, others)
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if not fit.misfits or convert is None:
        return fit
    with suppress(Exception):  # a state dict of another architecture lacks what timm's function looks for
        converted = Fit.of(model, convert(dict(state), model), name + start, others)
        return max(fit, converted, key=lambda one: len(one.tensors))
    return fit


def _is_input_of(key: str, cfg: Mapping[str, Any], own: Tensor, value: Tensor) -> bool:
    """Return whether `key` is the kernel that reads the images, of the same kind in both: only the channels differ."""
    first = cfg.get("first_conv") or ()
    names = (first,) if isinstance(first, str) else tuple(first)
    same = own.ndim == value.ndim == 4 and own.shape[0] == value.shape[0] and own.shape[2:] == value.shape[2:]
    return same and key in {f"{name}.weight" for name in names}


def _prefixes(names: Mapping[str, Any], smallest: float) -> list[str]:
    """Return "" and every prefix, up to a dot, that `smallest` names or more have."""
    counts = Counter(name[: i + 1] for name in names for i, letter in enumerate(name) if letter == ".")
    return ["", *(prefix for prefix, count in counts.items() if count >= smallest)]


def _mappings(content: Any, name: str = "") -> Iterator[tuple[str, StateDict]]:
    if isinstance(content, Mapping):
        if tensors := {str(key): value for key, value in content.items() if isinstance(value, Tensor)}:
            yield name, tensors
        for key, value in content.items():
            yield from _mappings(value, f"{name}{key}.")


def _read_safetensors(path: Path) -> StateDict:
    try:
        with safe_open(path, framework="pt") as file:
            if "vision_mtl" in (file.metadata() or {}):
                raise UserError(f"{str(path)!r} is a checkpoint of a run: give it as --init_from {path}.")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights file {str(path)!r} is damaged: {error}.") from None


def _read_torch(path: Path, head: bytes) -> Any:
    for start, what in NO_TORCH_FILE.items():
        if head.lstrip().startswith(start):
            raise UserError(f"the weights file {str(path)!r} holds no weights: {what}. Download the file itself.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE and others store their options so
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types of error
        unsafe: set[str] = set()
        with suppress(Exception):
            unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - {"argparse.Namespace"}
        if unsafe or type(error).__name__ == "UnpicklingError":
            what = f"Python objects ({', '.join(sorted(unsafe)[:SHOWN])})" if unsafe else "Python objects"
            raise UserError(
                f"the weights file {str(path)!r} holds {what} beside tensors, which are not loaded because they could "
                "run code. Save the state dict alone, in the program that wrote the file."
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights file {str(path)!r} is damaged, or no file of PyTorch: {reason[:200]}") from None


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    return f"a mapping of {', '.join(map(str, list(content)[:SHOWN]))}" if content else "an empty mapping"
