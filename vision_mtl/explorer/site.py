"""Build the explorer of a run from its model, its images, and optionally a second run that repairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.options import Data
from vision_mtl.explorer.gallery import Autocast, Gallery, build_gallery
from vision_mtl.explorer.handlers import MAX_FILE_BYTES, Explorer
from vision_mtl.explorer.repairing import Repairer
from vision_mtl.explorer.server import Site
from vision_mtl.inference.image_files import Frame, frame_of
from vision_mtl.inference.prediction_files import task_outputs
from vision_mtl.inference.predictor import Predictor
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build
from vision_mtl.recipes.start import start_network

MAX_REQUEST_BYTES = 4 * MAX_FILE_BYTES // 3 + 5_000_000  # a file in base64, and a number for each pixel of a mask


def open_site(
    config: RunConfig,
    run: Run,
    split: str,
    num_examples: int,
    num_neighbours: int,
    max_indexed: int,
    repair_with: str | None,
) -> Site:
    """Return the site for the run's network and images.

    Raises `UserError` without a run, and if images that were given as options are missing.
    """
    if not config.init_from:
        raise UserError("explore needs a trained run: give --init_from RUN, for example runs/pretrain-...")
    model, state = restore_model(config.init_from)
    predictor = Predictor(model, config.runtime, config.device)
    model.to(predictor.device)
    if repair_with is None:
        repairer = _repairer(model, state, predictor, config.init_from, run)
    else:
        repairer = _other_repairer(repair_with, model, predictor, run)
    limits = {"split": split, "num_examples": num_examples, "max_indexed": max_indexed}
    gallery, note = _gallery(config, run, state, model.backbone, predictor.autocast, limits)
    about = {
        "run": str(config.init_from),
        "repair_run": repair_with,
        "backbone": model.backbone.name,
        "step": state["step"],
        "split": split,
        "note": note,
    }
    explorer = Explorer(
        about,
        _frame(config, state, model),
        predictor,
        task_outputs(model.task_specs, state),
        repairer,
        gallery,
        num_neighbours,
    )
    handlers = {"open": explorer.open, "repair": explorer.repair}
    return Site(explorer.start, explorer.picture, handlers, MAX_REQUEST_BYTES)


def _frame(config: RunConfig, state: dict[str, Any], model: SharedModel) -> Frame:
    """Return the frame of files that are opened on the page: percentiles mean those of the run."""
    declared = None if "%" in str(config.data.value_range) else config.data.value_range
    where, channels = str(config.init_from), model.backbone.in_chans
    frame = frame_of(state, where, config.image_size, channels, declared, "data.value_range", config.data.fit)
    return replace(frame, rgb_bands=config.data.rgb_bands)


def _repairer(model: SharedModel, state: dict[str, Any], predictor: Predictor, where: str, run: Run) -> Repairer:
    """Return the repairer of the run `where` with its start, for what was learned."""
    start = start_network(where, run) if model.head_specs else None
    return Repairer(model, state, predictor.autocast, start if start is None else start.to(predictor.device))


def _other_repairer(where: str, model: SharedModel, predictor: Predictor, run: Run) -> Repairer:
    """Return the repairer of another run; raises `UserError` if it has no head or takes images of another size."""
    other, state = restore_model(where)
    sizes = [(m.backbone.in_chans, *m.backbone.image_size) for m in (other, model)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"explore.repair_with {where!r} takes images of {_size(*sizes[0])}, the explored run of {_size(*sizes[1])}."
        )
    if not other.head_specs:
        raise UserError(f"explore.repair_with {where!r} has no head that repairs; give a run of pretrain or joint.")
    return _repairer(other.to(predictor.device), state, predictor, where, run)


def _size(channels: int, height: int, width: int) -> str:
    return f"{height} x {width} pixels and {channels} channels"


def _gallery(
    config: RunConfig, run: Run, state: dict[str, Any], backbone: Backbone, autocast: Autocast, limits: dict[str, Any]
) -> tuple[Gallery | None, str | None]:
    """Return the run's images, or None and the reason; raises `UserError` if images given as options are missing."""
    try:
        pool = build.open_pool(config, run, backbone.in_chans)
        return build_gallery(pool, backbone, autocast, **limits), None
    except UserError as error:
        if _sources(config.section("data"), config.section("tasks")) != _sources(state["data"], state["tasks"]):
            raise
        run.warn(f"the run's own images are not shown: {error}")
        return None, f"The run's own images are not here, so there are neither examples nor neighbours: {error}"


def _sources(data: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> list[str]:
    return [*(data.get("unlabelled") or Data().unlabelled or []), *(task["source"] for task in tasks.values())]
