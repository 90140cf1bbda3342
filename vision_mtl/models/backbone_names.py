"""Names of backbones: an architecture of timm, a folder (`local-dir:FOLDER`), or a repository (`hf-hub:OWNER/NAME`).

A folder holds `config.json` and weights, as `--stage export` (in `backbone/`) and timm's `save_for_hf` write them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from timm.models._hub import load_state_dict_from_path
from torch import Tensor, nn

from vision_mtl.core.errors import UserError, unknown

LOCAL, HUB = "local-dir:", ("hf-hub:", "hf_hub:")
CONFIG = "config.json"


def timm_name(name: str) -> str:
    """Return the name as timm takes it; raise `UserError` for an unknown one and for a folder that holds no model."""
    if name.startswith(LOCAL):
        return LOCAL + str(_folder(name))
    if not name.startswith(HUB) and not timm.is_model(name.split(".")[0]):
        raise unknown("backbone", name, timm.list_models())
    return name


def _folder(name: str) -> Path:
    folder = Path(name.removeprefix(LOCAL)).expanduser()
    advice = "Give a folder that --stage export (RUN/backbone) or timm's save_for_hf wrote, from the working directory."
    path = folder / CONFIG
    if not path.is_file():
        what = f"has no {CONFIG}" if folder.is_dir() else "does not exist"
        raise UserError(f"backbone {name!r}: the folder {str(folder)!r} {what}. {advice}")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"backbone {name!r}: {str(path)!r} cannot be read as JSON: {error}. {advice}") from error
    architecture = found.get("architecture") if isinstance(found, dict) else None
    if not isinstance(architecture, str) or not timm.is_model(architecture.split(".")[0]):
        raise UserError(
            f"backbone {name!r}: {str(path)!r} names no architecture of timm; found {architecture!r}. {advice}"
        )
    return folder


def check_loaded(name: str, model: nn.Module) -> None:
    """Raise `UserError` if the folder of `local-dir:FOLDER` holds weights of another architecture than `model`'s.

    timm leaves weights that it does not find at random. The largest weight must be in the file, in whatever form.
    """
    if not name.startswith(LOCAL):
        return
    largest = max(model.parameters(), key=Tensor.numel)
    state = load_state_dict_from_path(_folder(name))
    same = [value for value in state.values() if isinstance(value, Tensor) and value.numel() == largest.numel()]
    total = largest.detach().double().sum()
    if not any(torch.isclose(value.double().sum(), total) for value in same):
        raise loading_error(name, RuntimeError("they are of another architecture"))


def loading_error(name: str, error: Exception) -> UserError:
    """Return the error for a model whose description or weights could not be had from its folder or the network."""
    reason = " ".join(str(error).split())[:300]
    if name.startswith(LOCAL):
        advice = (
            "Its weights must be those of its architecture; --backbone.pretrained false takes the architecture only."
        )
        return UserError(f"backbone {name!r}: its pretrained weights could not be loaded ({reason}). {advice}")
    if name.startswith(HUB):
        return UserError(
            f"backbone {name!r} could not be loaded from the Hugging Face hub ({reason}). Without a network, copy the "
            f"repository's {CONFIG} and model.safetensors into a folder and give --backbone.name local-dir:FOLDER."
        )
    advice = (
        "Without a network there are: --backbone.name tf_efficientnet_lite0 (or _lite1, _lite2), whose weights are in "
        "installed packages; --backbone.pretrained FILE, a state dict of this architecture; or random weights, without "
        "--backbone.pretrained."
    )
    return UserError(f"backbone {name!r}: its pretrained weights could not be loaded ({reason}). {advice}")


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppress the hub's reports of each retry, within which it may wait for half a minute; its error comes last."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
