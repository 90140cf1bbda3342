"""Checkpoints: one safetensors file each, everything a run needs to go on, and nothing that can execute.

A file is written beside its name, flushed and renamed, and its metadata holds a checksum of all its other bytes: one
that was cut off, or of which a single bit has changed since, is never loaded.

Tensors are named `model.*`, `average.*` (the averaged weights, if any), `balancing.*` (what balances several losses, if
it has any memory) and `optimiser.N.*` (N-th parameter of the optimiser's groups in order). The file's metadata holds
one more JSON text: step, training seconds, images seen, what the stage remembers (chance losses, best scores), and what
builds the model (backbone, decoder, heads, image size, normalisation, class names).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.training.dtensors import distribute_like, full_tensors, numbers_of

SUFFIX = ".safetensors"
BEST = f"best{SUFFIX}"  # weights chosen on validation images, where a run chooses: what others start from
METADATA = "vision_mtl"  # the metadata key of the state
DAMAGED = ".damaged"  # appended to the name of a file that is not to be read again
CHECKSUM_BYTES = 16
UNKNOWN = "0" * (2 * CHECKSUM_BYTES)  # stands for the checksum while it is computed


def save_checkpoint(
    folder: Path,
    state: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    average: nn.Module | None = None,
    balancing: nn.Module | None = None,
    keep: int = 2,
    write: bool = True,
) -> Path:
    """Write `folder/step-XXXXXXXX.safetensors` atomically and delete all but the newest `keep`. `state` has `step`.

    Where tensors are sharded, all processes must call it, at the same step, one of them to `write`.
    """
    modules = {"model": model, "average": average, "balancing": balancing}
    tensors = {f"{n}.{k}": v for n, m in modules.items() if m is not None for k, v in m.state_dict().items()}
    if optimiser is not None:
        tensors |= optimiser_tensors(optimiser)
    path = folder / f"step-{state['step']:08d}{SUFFIX}"
    tensors = full_tensors(tensors, keep=write, device="cpu")
    if not write:
        return path
    _write(path, state, tensors)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def save_weights(path: Path, state: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a model's weights alone, in a checkpoint's form: what others start from, not what a run goes on from.

    `weights`: name -> tensor of any shape.
    """
    _write(path, state, {f"model.{k}": v for k, v in weights.items()})


def _write(path: Path, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    # own storage for each: safetensors refuses tensors that share memory, as channels_last views and tied weights do
    owned = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    data = save(owned, metadata={METADATA: json.dumps(state), "checksum": UNKNOWN})
    atomic_write_bytes(path, data.replace(_field(UNKNOWN), _field(_checksum(data)), 1))


def _field(checksum: str) -> bytes:
    """How a checksum stands in a file's header; a quote inside the state is escaped, so nothing else looks like it."""
    return f'"checksum":"{checksum}"'.encode()


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).hexdigest()


def check(path: Path) -> None:
    """Raise `UserError` if a checkpoint cannot be read, or if its bytes are not those that were written."""
    read_state(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if metadata.keys() == {METADATA}:
        return  # written before there were checksums: safetensors' own look at its form is all there is
    data, checksum = path.read_bytes(), metadata.get("checksum", "")
    if len(checksum) != len(UNKNOWN) or _checksum(data.replace(_field(checksum), _field(UNKNOWN), 1)) != checksum:
        raise UserError(f"{str(path)!r} is damaged: its bytes are not those that were written (checksum).")


def checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def newest_checkpoint(folder: Path, damaged: Callable[[Path, str], None] = lambda path, why: None) -> Path | None:
    """The newest checkpoint that is whole, or None; a damaged one is passed over, and `damaged` told which and why."""
    for path in reversed(checkpoints(folder)):
        try:
            check(path)
        except UserError as error:
            damaged(path, str(error))
            continue
        return path
    return None


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that it neither counts among the newest nor is read again."""
    with suppress(OSError):  # a folder that cannot be written keeps it: it is then passed over once more
        path.replace(path.with_name(path.name + DAMAGED))


def find_checkpoint(where: Path) -> Path:
    """The weights that `where` means: a file, a run folder or its checkpoints folder.

    Of a folder: the best on validation images, where the run chose, else the newest whole one. Raises `UserError` if
    there is none, or if it is damaged.
    """
    if where.is_file():
        check(where)
        return where
    for folder in (where / "checkpoints", where):
        if (folder / BEST).is_file():
            check(folder / BEST)
            return folder / BEST
        if (found := newest_checkpoint(folder)) is not None:
            return found
    raise UserError(
        f"no checkpoint in {str(where)!r}: give a run folder, or a file {where}/checkpoints/step-*{SUFFIX}."
    )


def read_state(path: Path) -> dict[str, Any]:
    """The JSON state of a checkpoint, without reading its tensors; raises `UserError` if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a checkpoint of this project, or is damaged: {error}") from error


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors, of any shape, whose names start with `prefix.`, without it; raises `UserError` if none can be
    read."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{prefix}.")]  # noqa: SIM118 not a dict
            return {name.removeprefix(f"{prefix}."): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the checkpoint {str(path)!r} cannot be read, or not any more: {error}") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as named tensors of any shape; parameters that never had a gradient have none."""
    named, numbers = {}, numbers_of(optimiser)
    for place, state in optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{numbers[place]}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return named


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what `optimiser_tensors` gave, of any shape, its prefix removed; full tensors are sharded as parameters are.

    Each tensor gets its parameter's memory format: the fused AdamW walks through both as they lie in memory.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    places = {number: place for place, number in enumerate(numbers_of(optimiser))}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        place = places[int(number)]
        owner = parameters[place]
        like = torch.empty_like(owner, dtype=tensor.dtype) if tensor.shape == owner.shape else tensor
        state.setdefault(place, {})[key] = like.copy_(distribute_like(like, tensor))
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
