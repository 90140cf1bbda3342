"""From a config to its parts: the steps that several stages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vision_mtl.config.resolve import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.depth import freeze, last_stage
from vision_mtl.models.shared import HeadSpec, SharedModel
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.recipes.run_warnings import warn_of_seen
from vision_mtl.training.checkpoint import find_checkpoint, read_state, read_tensors
from vision_mtl.training.progress import DataProgress
from vision_mtl.training.repair import head_specs
from vision_mtl.training.supervised import task_head_specs


def open_pool(config: RunConfig, run: Run, channels: int | None = None) -> Pool:
    """Every image that the config names, decoded, with progress shown; its warnings are passed on to the run."""
    tasks = {name: Task(**task) for name, task in config.tasks.items()}
    channels = channels or config.backbone.get("in_chans", 3)
    with DataProgress(run.speaker) as progress:
        pool = build_pool(
            Data(**config.data), tasks, image_size=config.image_size, channels=channels, progress=progress
        )
    if pool.details["streamed"]:
        run.say(f"streamed, decoded while they are looked at: {', '.join(pool.details['streamed'])}")
    for warning in pool.warnings:
        run.warn(warning)
    warn_of_seen(run, pool, config.init_from)
    return pool


def build_pretexts(config: RunConfig) -> dict[str, Pretext]:
    """The config's pretexts of a weight above 0 by name, checked against its image size and channels.

    Raises `UserError` for one that cannot be used.
    """
    pretexts = {name: PRETEXTS.get(name)(**o) for name, o in config.pretexts.items() if o.get("weight", 1.0) > 0}
    shape = (config.backbone.get("in_chans", 3), *config.image_size)
    for pretext in pretexts.values():
        pretext.check(shape)
    sizes = {name: pretext.input_size(shape) for name, pretext in pretexts.items()}
    for name, (height, width) in sizes.items():
        # a batch has images of one size: the other pretexts', and the tasks' where they are learned together
        if (height, width) != config.image_size and (len(set(sizes.values())) > 1 or config.stage == "joint"):
            raise UserError(
                f"pretexts.{name}.view_size makes images of {height} x {width} pixels, which cannot share a batch with "
                f"those of tasks and other pretexts, {config.image_size[0]} x {config.image_size[1]}: leave it at 0, "
                f"or train on {name} alone (--stage pretrain)."
            )
    return pretexts


def build_model(
    config: RunConfig, pretexts: dict[str, Pretext], tasks: Mapping[str, TaskHeadSpec] | None = None
) -> SharedModel:
    """Backbone, decoder and heads as the config describes them, freshly initialised (or with timm's weights).

    Raises `UserError` where they do not go together.
    """
    backbone = Backbone(**config.backbone, image_size=config.image_size)
    for name, pretext in pretexts.items():
        size = pretext.input_size((backbone.in_chans, *config.image_size))
        if size != config.image_size and not backbone.takes(size):
            raise UserError(
                f"backbone.name {config.backbone['name']} takes images of {config.image_size[0]} x "
                f"{config.image_size[1]} pixels only, and pretexts.{name}.view_size makes them {size[0]} x {size[1]}: "
                "leave it at 0."
            )
    options = dict(config.decoder)
    maps = MapSpec(backbone.channels, backbone.map_sizes, config.image_size)
    decoder = DECODERS.get(options.pop("name"))(maps, **options)
    return SharedModel(backbone, decoder, head_specs(pretexts, backbone.in_chans), tasks)


def build_task_model(
    config: RunConfig,
    pool: Pool,
    tasks: Sequence[str],
    train: np.ndarray,
    drop_path_ratio: float = 0.0,
    pretexts: Mapping[str, Pretext] | None = None,
) -> SharedModel:
    """A model with a head for each of `tasks`, in units of the labels of the images `train` (N,) bool.

    Raises `UserError`.
    """
    backbone = dict(config.backbone)
    if drop_path_ratio:
        if not 0 <= drop_path_ratio < 1:
            raise UserError(f"drop_path_ratio must lie in [0, 1); found {drop_path_ratio}.")
        backbone["kwargs"] = {**backbone["kwargs"], "drop_path_rate": drop_path_ratio}
    return build_model(
        replace(config, backbone=backbone),
        dict(pretexts or {}),
        task_head_specs({name: pool.targets[name] for name in tasks}, train),
    )


def freeze_backbone(model: SharedModel, which: str) -> None:
    """Stop training the backbone: `none` of it, `early` all but its last stage, or `all`."""
    if which != "none":
        late = list(last_stage(model.backbone.model).parameters()) if which == "early" else []
        model.frozen = freeze(model.backbone, late)


def describe_model(config: RunConfig, model: SharedModel, pool: Pool) -> dict[str, Any]:
    """What a checkpoint must say to be used without its run: how to build the model, and what its inputs mean."""
    return {
        "backbone": config.backbone,
        "decoder": config.decoder,
        "pretexts": config.pretexts,
        "image_size": list(config.image_size),
        "mean": model.backbone.mean.flatten().tolist(),
        "std": model.backbone.std.flatten().tolist(),
        "class_names": pool.class_names,
        "answers": {name: vars(answer) for name, answer in model.head_specs.items()},
        "task_answers": {name: vars(answer) for name, answer in model.task_specs.items()},
        "data": config.data,
        "tasks": config.tasks,
    }


def restore_model(where: str) -> tuple[SharedModel, dict[str, Any]]:
    """The model that a run or checkpoint holds, with its weights and all its heads, and what it says of itself.

    Raises `UserError` if there is none, or if its weights do not fit what it says.
    """
    path = find_checkpoint(Path(where).expanduser())
    state, tensors = read_state(path), _stored_weights(path)
    size = (state["image_size"][0], state["image_size"][1])
    backbone = Backbone(**{**state["backbone"], "pretrained": False}, image_size=size)
    options = dict(state["decoder"])
    decoder = DECODERS.get(options.pop("name"))(MapSpec(backbone.channels, backbone.map_sizes, size), **options)
    heads = {name: HeadSpec(**answer) for name, answer in state["answers"].items()}
    tasks = {name: TaskHeadSpec(**answer) for name, answer in state["task_answers"].items()}
    model = SharedModel(backbone, decoder, heads, tasks)
    own = model.state_dict()
    wrong = [
        k for k in own.keys() | tensors.keys() if k not in own or k not in tensors or own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise UserError(f"{str(path)!r} does not hold what it says: {len(wrong)} tensors differ, first {min(wrong)!r}.")
    model.load_state_dict(tensors)
    return model.eval(), state


def load_weights(model: SharedModel, path: Path, heads: list[str] | None = None) -> None:
    """Load the weights of a checkpoint that is known to be whole: all of the backbone, what fits of decoder and heads.

    The averaged weights, where the run kept some. Raises `UserError` if the backbone does not fit, or if the decoder or
    one of `heads` (pretexts that must have been trained) is not there.
    """
    tensors = _stored_weights(path)
    fitting = _fitting(model.state_dict(), tensors, path)
    needed = [] if heads is None else ["decoder.", *(f"heads.{name}." for name in heads)]
    for prefix in needed:
        if any(k.startswith(prefix) and k not in fitting for k in model.state_dict()):
            part = f"pretext {prefix.split('.')[1]!r}" if prefix.startswith("heads") else "this decoder"
            trained = sorted(read_state(path)["pretexts"])
            raise UserError(f"{str(path)!r} holds no weights for {part}; it was trained on {', '.join(trained)}.")
    model.load_state_dict(fitting, strict=False)


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load the backbone alone of a checkpoint that is known to be whole; raises `UserError` if it does not fit."""
    tensors = _stored_weights(path)
    prefix = "backbone."
    fitting = _fitting({prefix + k: v for k, v in backbone.state_dict().items()}, tensors, path)
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in fitting.items()})


def _stored_weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint's averaged weights, or the last ones where it keeps no average."""
    return read_tensors(path, "average") or read_tensors(path, "model")


def _fitting(own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Those of `tensors` that fit the model's `own`; raises `UserError` unless they hold its whole backbone."""
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k.startswith("backbone.") and k not in fitting]
    if lacking:
        name = read_state(path)["backbone"]["name"]
        raise UserError(
            f"the weights in {str(path)!r} are of backbone {name!r} and do not fit this one: "
            f"{len(lacking)} tensors differ, first {lacking[0]!r}."
        )
    return fitting
