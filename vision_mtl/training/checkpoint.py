"""Checkpoints: safetensors files with everything that resuming needs, and no code that loading could execute.

A file is written under a temporary name, flushed and renamed. Its metadata holds a checksum of all other bytes, so a
truncated or corrupted file is never loaded.

Tensors are named `model.*`, `average.*` (averaged weights, if any), `balancing.*` (the state of the loss balancing, if
any) and `optimiser.N.*` (N-th parameter of the optimiser's groups in order). The metadata also holds a JSON state:
step, training seconds, images seen, the stage's own values (chance losses, best scores), and what builds the model
(backbone, decoder, heads, image size, normalisation, class names).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
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
BEST = f"best{SUFFIX}"  # weights chosen on validation images, if the run does so: `--init_from` prefers them
METADATA = "vision_mtl"  # the metadata key of the state
DAMAGED = ".damaged"  # appended to the name of a file that must not be read again
CHECKSUM_BYTES = 16
CLOCK_TICK_NS = 10_000_000
UNKNOWN = "0" * (2 * CHECKSUM_BYTES)  # placeholder of the checksum while it is computed


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
    """Write `folder/step-XXXXXXXX.safetensors` atomically, delete all but the newest `keep`, and return the path.

    `state` must have the key `step`. If tensors are sharded, all processes must call it at the same step, and only one
    of them with `write`.
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
    """Write a checkpoint with a model's weights alone: other runs can start from it, but it cannot be resumed.

    `weights`: name -> tensor of any shape.
    """
    _write(path, state, {f"model.{k}": v for k, v in weights.items()})


def _write(path: Path, state: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    # copies: safetensors refuses tensors that share memory, as channels_last views and tied weights do
    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    data = save(copies, metadata={METADATA: json.dumps(state), "checksum": UNKNOWN})
    atomic_write_bytes(path, data.replace(_field(UNKNOWN), _field(_checksum(data)), 1))


def _field(checksum: str) -> bytes:
    """Return the checksum's entry in a file's header; quotes in the state are escaped, so it is found only once."""
    return f'"checksum":"{checksum}"'.encode()


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).hexdigest()


def check(path: Path) -> None:
    """Raise `UserError` if a checkpoint cannot be read, or if its checksum does not match.

    A file that has not changed since this process checked it is not read again: the next commands that a run prints ask
    for its checkpoint a dozen times.
    """
    if (version := _version(path)) is None:
        _check_contents.__wrapped__(path, version)
    else:
        _check_contents(path, version)


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return inode, time and size of a file, which differ after a change; None if it changed a moment ago or is gone.

    A clock of a file system ticks every 10 ms or faster: two changes within a tick would have the same time.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    is_new = abs(time.time_ns() - found.st_mtime_ns) < 10 * CLOCK_TICK_NS
    return None if is_new else (found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)  # errors are not kept
def _check_contents(path: Path, version: tuple[int, int, int] | None) -> None:
    read_state(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if metadata.keys() == {METADATA}:
        return  # written before checksums were introduced: only safetensors' own format check applies
    data, checksum = path.read_bytes(), metadata.get("checksum", "")
    if len(checksum) != len(UNKNOWN) or _checksum(data.replace(_field(checksum), _field(UNKNOWN), 1)) != checksum:
        raise UserError(f"{str(path)!r} is damaged: its checksum does not match.")


def checkpoints(folder: Path) -> list[Path]:
    """Return the folder's checkpoints, oldest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def newest_checkpoint(folder: Path, damaged: Callable[[Path, str], None] = lambda path, why: None) -> Path | None:
    """Return the newest valid checkpoint, or None; `damaged` is called with each newer one that is invalid, and why."""
    for path in reversed(checkpoints(folder)):
        try:
            check(path)
        except UserError as error:
            damaged(path, str(error))
            continue
        return path
    return None


def set_aside(path: Path) -> None:
    """Rename a damaged file, so that it does not count as a checkpoint any more."""
    with suppress(OSError):  # in a read-only folder it keeps its name and is skipped again next time
        path.replace(path.with_name(path.name + DAMAGED))


def find_checkpoint(where: Path) -> Path:
    """Return the checkpoint that `where` means: a file, a run folder or its folder of checkpoints.

    In a folder: the best on validation images, if the run saved it, else the newest valid one. Raises `UserError` if
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
    """Return the JSON state of a checkpoint, without reading its tensors; raise `UserError` if the file is invalid."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a checkpoint of this project, or is damaged: {error}") from error


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors, of any shape, whose names start with `prefix.`, by the rest of their names.

    Raises `UserError` if the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{prefix}.")]  # noqa: SIM118 not a dict
            return {name.removeprefix(f"{prefix}."): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the checkpoint {str(path)!r} cannot be read: {error}") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return AdamW's state as named tensors of any shape; parameters that never had a gradient have none."""
    named: dict[str, Tensor] = {}
    numbers = numbers_of(optimiser)
    for place, state in optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{numbers[place]}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return named


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the full tensors (of any shape) of `optimiser_tensors`, without the prefix; shard them like the parameters.

    Each tensor gets its parameter's memory format, because the fused AdamW reads both in memory order.
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
