"""Write the exported files of a model and describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_mtl import __version__
from vision_mtl.export.graph import (
    check,
    difference_units,
    read_onnx,
    read_program,
    trace,
    write_onnx,
    write_program,
)
from vision_mtl.models.inference_model import FEATURES, InferenceModel
from vision_mtl.models.shared import SharedModel


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
    units = difference_units(model.head_specs)
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
