"""Checkpoints: one safetensors file each, everything a run needs to go on, and nothing that can execute.

Tensors are named `model.*`, `average.*` (the averaged weights, if any), `balancing.*` (what balances several losses, if
it has any memory) and `optimiser.N.*` (N-th parameter of the optimiser's groups in order). The file's metadata holds
one JSON text: step, training seconds, images seen, what the stage remembers (chance losses, best scores), and what
builds the model (backbone, decoder, heads, image size, normalisation, class names).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes

SUFFIX = ".safetensors"
BEST = f"best{SUFFIX}"  # weights chosen on validation images, where a run chooses: what others start from
METADATA = "vision_mtl"  # the one metadata key


def save_checkpoint(
    folder: Path,
    state: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    average: nn.Module | None = None,
    balancing: nn.Module | None = None,
    keep: int = 2,
) -> Path:
    """Write `folder/step-XXXXXXXX.safetensors` atomically and delete all but the newest `keep`. `state` has `step`."""
    modules = {"model": model, "average": average, "balancing": balancing}
    tensors = {f"{n}.{k}": v for n, m in modules.items() if m is not None for k, v in m.state_dict().items()}
    if optimiser is not None:
        tensors |= optimiser_tensors(optimiser)
    path = folder / f"step-{state['step']:08d}{SUFFIX}"
    _write(path, state, tensors)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def save_weights(path: Path, state: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a model's weights alone, in a checkpoint's form: what others start from, not what a run goes on from."""
    _write(path, state, {f"model.{k}": v for k, v in weights.items()})


def _write(path: Path, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    # own storage for each: safetensors refuses tensors that share memory, as channels_last views and tied weights do
    owned = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, save(owned, metadata={METADATA: json.dumps(state)}))


def checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be read, or None; a damaged one is passed over."""
    for path in reversed(checkpoints(folder)):
        try:
            read_state(path)
        except UserError:
            continue
        return path
    return None


def find_checkpoint(where: Path) -> Path:
    """The weights that `where` means: a file, a run folder or its checkpoints folder. Raises `UserError` if none.

    Of a folder: the best on validation images, where the run chose, else the newest.
    """
    if where.is_file():
        return where
    for folder in (where / "checkpoints", where):
        found = folder / BEST if (folder / BEST).is_file() else newest_checkpoint(folder)
        if found is not None:
            return found
    raise UserError(
        f"no checkpoint in {str(where)!r}: give a run folder, or a file {where}/checkpoints/step-*{SUFFIX}."
    )


def read_state(path: Path) -> dict[str, Any]:
    """The JSON state of a checkpoint, without reading its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a checkpoint of this project, or is damaged: {error}") from error


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix.`, without it."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(f"{prefix}.")]  # noqa: SIM118 not a dict
        return {name.removeprefix(f"{prefix}."): file.get_tensor(name) for name in names}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as named tensors; parameters that never had a gradient have none."""
    named = {}
    for number, state in optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return named


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took, its prefix removed.

    Each tensor gets its parameter's memory format: the fused AdamW walks through both as they lie in memory.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        owner = parameters[int(number)]
        like = torch.empty_like(owner, dtype=tensor.dtype) if tensor.shape == owner.shape else tensor
        state.setdefault(int(number), {})[key] = like.copy_(tensor)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
