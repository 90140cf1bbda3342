"""Build the explorer's page from a run: its model, its images, and a second run that repairs."""

from __future__ import annotations

from typing import Any

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.options import Data
from vision_mtl.explorer.answers import MAX_FILE_BYTES, Explorer
from vision_mtl.explorer.gallery import Autocast, Gallery, build_gallery
from vision_mtl.explorer.repairing import Repairer
from vision_mtl.explorer.server import Site
from vision_mtl.inference.image_files import Frame
from vision_mtl.inference.prediction_files import task_outputs
from vision_mtl.inference.predictor import Predictor
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build

MAX_QUESTION_BYTES = 4 * MAX_FILE_BYTES // 3 + 5_000_000  # a file in base64, and every pixel of a mask by its number


def open_site(
    config: RunConfig,
    run: Run,
    split: str,
    num_examples: int,
    num_neighbours: int,
    max_indexed: int,
    repair_with: str | None,
) -> Site:
    """The run's network and images as what a page may ask.

    Raises `UserError` without a run, and for images that were asked for and are not there.
    """
    if not config.init_from:
        raise UserError("explore needs a trained run: give --init_from RUN, for example runs/pretrain-...")
    model, state = restore_model(config.init_from)
    ask = Predictor(model, config.runtime, config.device)
    model.to(ask.device)
    repairer = Repairer(model, state, ask.autocast) if repair_with is None else _other(repair_with, model, ask)
    wanted = {"split": split, "num_examples": num_examples, "max_indexed": max_indexed}
    gallery, note = _gallery(config, run, state, model.backbone, ask.autocast, wanted)
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
        Frame(config.image_size, model.backbone.in_chans, config.data.fit),
        ask,
        task_outputs(model.task_specs, state),
        repairer,
        gallery,
        num_neighbours,
    )
    questions = {"open": explorer.open, "answer": explorer.answer}
    return Site(explorer.start, explorer.picture, questions, MAX_QUESTION_BYTES)


def _other(where: str, model: SharedModel, ask: Predictor) -> Repairer:
    """The repairer of another run; raises `UserError` unless it takes the same images."""
    other, state = restore_model(where)
    sizes = [(m.backbone.in_chans, *m.backbone.image_size) for m in (other, model)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"explore.repair_with {where!r} takes images of {_size(*sizes[0])}, the explored run of {_size(*sizes[1])}."
        )
    if not other.answers:
        raise UserError(f"explore.repair_with {where!r} has no head that repairs; give a run of pretrain or joint.")
    return Repairer(other.to(ask.device), state, ask.autocast)


def _size(channels: int, height: int, width: int) -> str:
    return f"{height} x {width} pixels and {channels} channels"


def _gallery(
    config: RunConfig, run: Run, state: dict[str, Any], backbone: Backbone, autocast: Autocast, wanted: dict[str, Any]
) -> tuple[Gallery | None, str | None]:
    """The run's images, or None and why; raises `UserError` if other images were asked for and are not there."""
    try:
        pool = build.open_pool(config, run, backbone.in_chans)
        return build_gallery(pool, backbone, autocast, **wanted), None
    except UserError as error:
        if _sources(config.section("data"), config.section("tasks")) != _sources(state["data"], state["tasks"]):
            raise
        run.warn(f"the run's own images are not shown: {error}")
        return None, f"The run's own images are not here, so there are neither examples nor neighbours: {error}"


def _sources(data: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> list[str]:
    return [*(data.get("unlabelled") or Data().unlabelled or []), *(task["source"] for task in tasks.values())]
