"""Write the exported graphs of a model with their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_mtl import __version__
from vision_mtl.export.graph import (
    Predict,
    check,
    difference_units,
    read_onnx,
    read_program,
    trace,
    write_onnx,
    write_program,
)
from vision_mtl.export.model_card import public_source
from vision_mtl.models.inference_model import FEATURES, InferenceModel
from vision_mtl.models.shared import SharedModel


def describe_export(model: SharedModel, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of every exported file: the form of inputs and the meaning of outputs, without any path."""
    backbone = model.backbone
    return {
        "version": __version__,
        "architecture": backbone.model.pretrained_cfg["architecture"],
        "image_size": list(backbone.image_size),
        "input_size": list(backbone.input_size),  # the graphs enlarge images to it
        "channels": backbone.in_chans,
        "range": [0, 1],
        "fit": state["data"]["fit"],
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
        **_value_ranges(state),
        "tasks": {
            task: {"kind": spec.kind, "class_names": state["class_names"][task]}
            for task, spec in model.task_specs.items()
        },
    }


def _value_ranges(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry `value_ranges`, of a model of deep images: source -> the `low` and `high` of its pixels."""
    ranges = state.get("value_ranges") or {}
    found = {public_source(s): {key: float(own[key]) for key in ("low", "high")} for s, own in ranges.items()}
    return {"value_ranges": found} if found else {}


def write_graphs(
    model: InferenceModel, about: Mapping[str, Any], folder: Path, onnx: bool, torch_export: bool
) -> tuple[list[Path], dict[str, float], dict[str, Predict]]:
    """Write model.onnx and model.pt2 as chosen, check them.

    Returns their paths, their differences from the model, and functions that run them.
    """
    if not (onnx or torch_export):
        return [], {}, {}
    shape = (about["channels"], *about["image_size"])
    program, metadata = trace(model, shape), json.dumps(about, ensure_ascii=False)
    units = difference_units(model.head_specs)
    written, graphs = [], {}
    if onnx:
        path = folder / "model.onnx"
        written += write_onnx(program, list(model.tasks) or [FEATURES], path, metadata)
        graphs["onnx"] = path.name, read_onnx(path)
    if torch_export:
        path = folder / "model.pt2"
        write_program(program, path, metadata)
        written.append(path)
        graphs["torch_export"] = path.name, read_program(path)
    differences = {key: check(name, model, graph, units, shape) for key, (name, graph) in graphs.items()}
    return written, differences, {key: graph for key, (_, graph) in graphs.items()}
