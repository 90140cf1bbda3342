"""Build what a config describes: pool, pretexts, model. Several stages share these steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import torch
from torch import nn

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.findings import Findings
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.split_files import SPLIT_FILE, run_splits, write_splits
from vision_mtl.data.value_ranges import KnownRanges
from vision_mtl.models.decoder import MapSpec
from vision_mtl.models.depth import freeze, last_stage
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.recipes.band_statistics import fit_statistics
from vision_mtl.recipes.initial_weights import initial_backbone
from vision_mtl.recipes.run_warnings import warn_about_seen_test_images
from vision_mtl.training.checkpoint import checkpoints, read_state
from vision_mtl.training.progress import DataProgress
from vision_mtl.training.repair import head_specs
from vision_mtl.training.supervised import task_head_specs


def open_pool(config: RunConfig, run: Run, channels: int | None = None) -> Pool:
    """Return the pool of all images that the config names; show progress, and pass its findings on to the run."""
    pool = decode_pool(config, run, channels or config.backbone.in_chans, Findings())
    if pool.details["streamed"]:
        run.say(f"streamed, decoded during training: {', '.join(pool.details['streamed'])}")
    for finding in pool.findings:
        if finding.severity == "note":
            run.say(f"note: {finding}")
        else:
            run.warn(str(finding))
    warn_about_seen_test_images(run, pool, config.init_from)
    return pool


def decode_pool(config: RunConfig, run: Run, channels: int, findings: Findings) -> Pool:
    """Return the pool of all images that the config names; show progress, and add what is found to `findings`.

    Without errors, the splits are written to the run's folder. A resumed run keeps those that it has.
    """
    with DataProgress(run.speaker) as progress:
        pool = build_pool(
            config.data,
            config.tasks,
            image_size=config.image_size,
            channels=channels,
            progress=progress,
            findings=findings,
            run_splits=run_splits(run.folder),
            known=known_ranges(config, run),
        )
    if run.is_main and config.options.writes_run and not findings.of("error"):
        write_splits(run.folder / SPLIT_FILE, pool.assigned)
    return pool


def known_ranges(config: RunConfig, run: Run) -> KnownRanges | None:
    """Return the ranges of the run that is resumed, or else of the one to start from; None of a new run."""
    for where, path in (
        (run.folder, next(reversed(checkpoints(run.checkpoints)), None)),
        (config.init_from, config.start),
    ):
        if path is not None:
            with suppress(UserError):  # a damaged checkpoint is reported by whoever needs its weights
                return KnownRanges.of(str(where), read_state(path))
    return None


def build_pretexts(config: RunConfig) -> dict[str, Pretext]:
    """Return the config's pretexts with a weight above 0, checked against its image size and channels.

    Raises `UserError` for one that cannot be used.
    """
    pretexts = {name: pretext for name, pretext in config.pretexts.items() if pretext.weight > 0}
    shape = (config.backbone.in_chans, *config.image_size)
    for pretext in pretexts.values():
        pretext.check(shape)
    sizes = {name: pretext.input_size(shape) for name, pretext in pretexts.items()}
    for name, (height, width) in sizes.items():
        # all images of a batch have one size
        if (height, width) != config.image_size and (
            len(set(sizes.values())) > 1 or config.options.mixes_pretexts_with_tasks
        ):
            raise UserError(
                f"pretexts.{name}.view_size makes images of {height} x {width} pixels, which cannot share a batch with "
                f"those of tasks and other pretexts, {config.image_size[0]} x {config.image_size[1]}: leave it at 0, "
                f"or train on {name} alone (--stage pretrain)."
            )
    return pretexts


def build_model(
    config: RunConfig,
    pretexts: dict[str, Pretext],
    tasks: Mapping[str, TaskHeadSpec] | None = None,
    run: Run | None = None,
) -> SharedModel:
    """Return the model that the config describes, with random weights, or those of `backbone.pretrained`.

    `run` is the run that may resume without them. Raises `UserError` for a backbone, decoder or pretext that cannot be
    combined.
    """
    backbone = initial_backbone(config, run)
    for name, pretext in pretexts.items():
        size = pretext.input_size((backbone.in_chans, *config.image_size))
        if size != config.image_size and not backbone.accepts(size):
            raise UserError(
                f"backbone.name {config.backbone.name} takes images of {config.image_size[0]} x "
                f"{config.image_size[1]} pixels only, and pretexts.{name}.view_size makes them {size[0]} x {size[1]}: "
                "leave it at 0."
            )
    decoder = config.decoder.build(MapSpec(backbone.channels, backbone.map_sizes, config.image_size))
    return SharedModel(backbone, decoder, head_specs(pretexts, backbone.in_chans), tasks)


def build_task_model(
    config: RunConfig,
    pool: Pool,
    tasks: Sequence[str],
    drop_path_ratio: float = 0.0,
    pretexts: Mapping[str, Pretext] | None = None,
    run: Run | None = None,
) -> SharedModel:
    """Return a model with a head for each of `tasks`, in the unit of the pool's labels.

    `run` is as for `build_model`. Raises `UserError` for a drop path ratio out of range, and as `build_model` does.
    """
    backbone = config.backbone
    if drop_path_ratio:
        if not 0 <= drop_path_ratio < 1:
            raise UserError(f"drop_path_ratio must lie in [0, 1); found {drop_path_ratio}.")
        backbone = replace(backbone, kwargs={**backbone.kwargs, "drop_path_rate": drop_path_ratio})
    model = build_model(
        replace(config, backbone=backbone),
        dict(pretexts or {}),
        task_head_specs({name: pool.targets[name] for name in tasks}),
        run,
    )
    fit_statistics(model.backbone, pool, pool.indices("train"))
    return model


def freeze_backbone(model: SharedModel, which: str) -> None:
    """Freeze the backbone: `none` of it, `early` all but its last stage, or `all`."""
    if which != "none":
        late = list(last_stage(model.backbone.model).parameters()) if which == "early" else []
        model.frozen = freeze(model.backbone, late)


def place(model: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move the model to the device, in the memory format `layout`."""
    model.to(device, memory_format=layout)  # type: ignore[call-overload]  # PyTorch's hints lack this overload


def describe_model(
    config: RunConfig, model: SharedModel, pool: Pool, teacher: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON part of a checkpoint: how to rebuild the model without its run, and what its inputs mean.

    `teacher` is the record of the network whose features were targets. That of the run to start from counts too.
    """
    teacher = _with_earlier(teacher, None if config.start is None else read_state(config.start).get("teacher"))
    return {
        "backbone": config.section("backbone"),
        "decoder": config.section("decoder"),
        "pretexts": config.section("pretexts"),
        "image_size": list(config.image_size),
        "mean": model.backbone.mean.flatten().tolist(),
        "std": model.backbone.std.flatten().tolist(),
        "weights": model.backbone.weights,  # that training began with; None: random
        "class_names": pool.class_names,
        "answers": {name: vars(spec) for name, spec in model.head_specs.items()},
        "task_answers": {name: vars(spec) for name, spec in model.task_specs.items()},
        "data": config.section("data"),
        "tasks": config.section("tasks"),
        "value_ranges": pool.details.get("value_ranges", {}),  # of deep sources
        **({"teacher": dict(teacher)} if teacher else {}),
    }


def _with_earlier(teacher: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the record of a teacher, with what the teacher of an earlier run was trained on."""
    if teacher is None or earlier is None or teacher["sha256"] == earlier["sha256"]:
        return teacher or earlier
    before = f"an earlier teacher {PurePath(earlier['name']).name}: {earlier['trained_on']}"
    return {**teacher, "trained_on": f"{teacher['trained_on']}; {before}"}
