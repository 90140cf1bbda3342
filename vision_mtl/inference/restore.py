"""Restore a model from a run's checkpoint, or load the weights that fit another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from vision_mtl.config.run_config import read_section
from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import MapSpec
from vision_mtl.models.shared import HeadSpec, SharedModel
from vision_mtl.training.checkpoint import find_checkpoint, read_state, read_tensors


def restore_model(where: str) -> tuple[SharedModel, dict[str, Any]]:
    """Return the model of a run or checkpoint with its weights and all heads, and the checkpoint's metadata.

    Raises `UserError` if there is none, or if its weights do not match the metadata.
    """
    path = find_checkpoint(Path(where).expanduser())
    state, tensors = read_state(path), _stored_weights(path)
    size = (state["image_size"][0], state["image_size"][1])
    backbone = Backbone.of(read_section("backbone", {**state["backbone"], "pretrained": False}), size)
    decoder = read_section("decoder", state["decoder"]).build(MapSpec(backbone.channels, backbone.map_sizes, size))
    heads = {name: HeadSpec(**spec) for name, spec in state["answers"].items()}
    tasks = {name: TaskHeadSpec(**spec) for name, spec in state["task_answers"].items()}
    model = SharedModel(backbone, decoder, heads, tasks)
    own = model.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    # asks the model: a head knows what checkpoints of earlier versions lack
    wrong = {*model.load_state_dict(fitting, strict=False).missing_keys, *(tensors.keys() - fitting.keys())}
    if wrong:
        raise UserError(f"{str(path)!r} does not match its metadata: {len(wrong)} tensors differ, as {min(wrong)!r}.")
    backbone.weights = state.get("weights")
    return model.eval(), state


def load_fitting_weights(model: SharedModel, path: Path, heads: list[str] | None = None) -> None:
    """Load a valid checkpoint into `model`: the complete backbone, and those weights of decoder and heads that fit.

    Averaged weights are used where the run kept them. Raises `UserError` if the backbone does not fit, or if the
    weights of the decoder or of one of `heads` (pretexts) are missing; `heads` None requires neither.
    """
    tensors = _stored_weights(path)
    fitting = _fitting(model.state_dict(), tensors, path)
    needed = [] if heads is None else ["decoder.", *(f"heads.{name}." for name in heads)]
    for prefix in needed:
        if any(k.startswith(prefix) and k not in fitting for k in model.state_dict()):
            part = f"pretext {prefix.split('.')[1]!r}" if prefix.startswith("heads") else "this decoder"
            trained = ", ".join(sorted(read_state(path)["pretexts"])) or "no pretext"
            raise UserError(f"{str(path)!r} holds no weights for {part}; it was trained on {trained}.")
    model.load_state_dict(fitting, strict=False)
    model.backbone.weights = read_state(path).get("weights")
    for name, spec in model.task_specs.items():  # the other run's labels may have had another mean and deviation
        model.set_unit(name, spec.offset, spec.scale)


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load only the backbone of a valid checkpoint; raises `UserError` if it does not fit."""
    tensors = _stored_weights(path)
    prefix = "backbone."
    fitting = _fitting({prefix + k: v for k, v in backbone.state_dict().items()}, tensors, path)
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in fitting.items()})
    backbone.weights = read_state(path).get("weights")


def _stored_weights(path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's averaged weights, or the last ones if it has no average."""
    return read_tensors(path, "average") or read_tensors(path, "model")


def _fitting(own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return those of `tensors` that fit the model's `own`; raises `UserError` if part of its backbone is missing."""
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k.startswith("backbone.") and k not in fitting]
    if lacking:
        name = read_state(path)["backbone"]["name"]
        raise UserError(
            f"the weights in {str(path)!r} are of backbone {name!r} and do not fit this one: "
            f"{len(lacking)} tensors differ, first {lacking[0]!r}."
        )
    return fitting
