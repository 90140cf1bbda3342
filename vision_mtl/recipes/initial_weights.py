"""The weights that a network starts from, also where a run is resumed and its file of weights is gone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.models.weights import weights_text
from vision_mtl.training.checkpoint import checkpoints, read_state
from vision_mtl.training.progress import phase

MAX_RATIO = 2  # of sides: published networks are trained on crops that change the size of objects by as much


def initial_backbone(config: RunConfig, run: Run | None = None) -> Backbone:
    """Return the backbone with the weights of `backbone.pretrained`, or random ones if `--init_from` brings others.

    With `run`, a resumed run whose weights cannot be had any more gets random ones, with a warning: its checkpoint has
    the trained ones. Raises `UserError` as `Backbone` does.
    """
    options = replace(config.backbone, pretrained=False) if config.start else config.backbone
    if run is None or not options.pretrained:
        return Backbone.of(options, config.image_size)
    expected = recorded_weights(run.checkpoints)
    try:
        with phase(run.speaker, f"loading weights of {options.name}"):  # timm may wait for the network
            backbone = Backbone.of(options, config.image_size)
        if expected is None:
            return backbone
        check_unchanged(backbone, expected)
    except UserError as error:
        if expected is None:
            raise
        run.warn(
            f"{error} The run resumes from its checkpoint without them; the network that it started from is not among "
            "the rules of skill_learned."
        )
        backbone = Backbone.of(replace(options, pretrained=False), config.image_size)
        backbone.weights, backbone.weights_lost = dict(expected) or None, True
    return backbone


def recorded_weights(folder: Path) -> dict[str, Any] | None:
    """Return the record of initial weights in the newest checkpoint of `folder`; None without a checkpoint."""
    for path in reversed(checkpoints(folder)):
        with suppress(UserError):  # a damaged checkpoint is reported where it is loaded
            return read_state(path).get("weights") or {}
    return None


def check_unchanged(backbone: Backbone, expected: Mapping[str, Any]) -> None:
    """Raise `UserError` if the file of weights is not the one that the run started from."""
    before, now = expected.get("sha256"), (backbone.weights or {}).get("sha256")
    if before and before != now:
        raise UserError(
            f"the weights of backbone.pretrained {backbone.options.pretrained} are not those that the run started "
            f"from: their sha256 was {before[:8]} and is {str(now)[:8]}."
        )


def report_weights(run: Run, backbone: Backbone, is_new: bool = True) -> None:
    """Keep the record of the weights for `result.json`; of a new run, also log it and warn of tensors left out."""
    if backbone.weights is None:
        return
    run.about["weights"] = backbone.weights
    if is_new:
        run.say(f"the backbone starts from {weights_text(backbone.weights)}")
        for text in backbone.load_warnings:
            run.warn(text)
        if text := scale_note(backbone):
            run.say(text)


def scale_note(backbone: Backbone) -> str:
    """Return a note if the network sees images of a size much unlike that of its published weights, else "".

    Nothing is known of the images of a file of weights.
    """
    theirs, ours = backbone.weights_size, min(backbone.input_size)
    if not theirs or (backbone.weights or {}).get("source") == "file":
        return ""
    if max(theirs, ours) <= MAX_RATIO * min(theirs, ours):
        return ""
    enlarge = " or with enlarged images (--backbone.input_size)" if ours < theirs else ""
    return (
        f"note: these weights were trained on images of {theirs} pixels, and the network sees {ours}: shapes have "
        f"another size. They may be worth more with another --image_size{enlarge}."
    )


def keeps_statistics(config: RunConfig) -> bool:
    """Return True if the first weights are published ones: their frozen features keep their BatchNorm statistics.

    With those of the run's images, ridge probes of ImageNet weights lost .10 (cars) and .09 (pets) at 64 pixels.
    """
    return bool(config.backbone.pretrained) and not config.start


def before_training(model: SharedModel) -> SharedModel | None:
    """Return a copy of the network before a checkpoint or training changes it; None if its weights are lost."""
    return None if model.backbone.weights_lost else deepcopy(model)
