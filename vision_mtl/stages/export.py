"""Backbone and multi-task model as files that need no vision_mtl: timm, ONNX, torch.export, and a model card."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vision_mtl import __version__
from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import Run
from vision_mtl.export.backbone import backbone_difference, write_backbone
from vision_mtl.export.graph import (
    TRACED,
    answer_units,
    check,
    read_onnx,
    read_program,
    trace,
    write_onnx,
    write_program,
)
from vision_mtl.export.model_card import card_text, read_origin
from vision_mtl.models.inference_model import FEATURES, InferenceModel
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build

SECTIONS = ()


@STAGES.register("export")
def export(
    config: RunConfig,
    run: Run,
    *,
    onnx: bool = True,  # write model.onnx, the multi-task model for onnxruntime and others
    torch_export: bool = True,  # write model.pt2, the multi-task model for PyTorch without this project
) -> None:
    """Restore the model, write each file and compare it to the model, describe them in a card.

    Everything runs on the CPU in float32, whatever `device` says: files must not depend on the machine.
    """
    if not config.init_from:
        raise UserError("export needs trained weights: give --init_from RUN, for example runs/finetune-...")
    started = time.perf_counter()
    model, state = build.restore_model(config.init_from)
    if not run.is_main:
        return  # one process writes
    if not model.task_specs and (onnx or torch_export):
        run.say(f"{config.init_from} has no task heads: the exported model gives {FEATURES!r}, pooled.")
    about = describe_export(model, state)
    written = write_backbone(model.backbone, run.folder / "backbone", about["fit"])
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(TRACED, about["channels"], *about["image_size"], generator=generator)
    differences = {"timm": backbone_difference(model.backbone, run.folder / "backbone", images)}
    graphs, found = write_graphs(InferenceModel(model).eval(), about, run.folder, onnx, torch_export)
    written += graphs
    card = run.folder / "MODEL_CARD.md"
    origin = read_origin(Path(config.init_from).expanduser())
    atomic_write_text(card, card_text(origin, state, about, [path.name for path in written]))
    sizes = {path.relative_to(run.folder).as_posix(): path.stat().st_size for path in [*written, card]}
    metrics = {"files": sizes, "differences": differences | found}
    run.write_result("completed", metrics=metrics, seconds=time.perf_counter() - started)


def describe_export(model: SharedModel, state: Mapping[str, Any]) -> dict[str, Any]:
    """What every exported file says of itself: what goes in, and what the answers mean. Holds no path."""
    backbone = model.backbone
    return {
        "version": __version__,
        "architecture": backbone.model.pretrained_cfg["architecture"],
        "image_size": list(backbone.image_size),
        "channels": backbone.in_chans,
        "range": [0, 1],
        "fit": state["data"]["fit"],
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        "tasks": {
            task: {"kind": answer.kind, "class_names": state["class_names"][task]}
            for task, answer in model.task_specs.items()
        },
    }


def write_graphs(
    model: InferenceModel, about: Mapping[str, Any], folder: Path, onnx: bool, torch_export: bool
) -> tuple[list[Path], dict[str, float]]:
    """Write and check the asked ones of model.onnx and model.pt2; returns their paths and differences."""
    if not (onnx or torch_export):
        return [], {}
    shape = (about["channels"], *about["image_size"])
    program, metadata = trace(model, shape), json.dumps(about, ensure_ascii=False)
    units = answer_units(model.head_specs)
    written, differences = [], {}
    if onnx:
        path = folder / "model.onnx"
        written += write_onnx(program, list(model.tasks) or [FEATURES], path, metadata)
        differences["onnx"] = check("model.onnx", model, read_onnx(path), units, shape)
    if torch_export:
        path = folder / "model.pt2"
        write_program(program, path, metadata)
        written.append(path)
        differences["torch_export"] = check("model.pt2", model, read_program(path), units, shape)
    return written, differences
