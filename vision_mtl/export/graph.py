"""Write the model as one file: ONNX, or PyTorch's exported program. Each is compared with the model after writing.

Both formats record source paths of this machine, which are removed.
"""
# B images, C channels, H W pixels, K classes

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.models.inference_model import InferenceModel

INPUT = "images"
BATCH = "N"  # name of the dynamic number of images
METADATA = "vision_mtl"  # key of the JSON text in ONNX metadata; with .json, the file in an exported program
BATCHES = (1, 5)  # batch sizes that an exported file is checked with; it is traced with another
TRACED = 2
TOLERANCE = 1e-4  # difference from the model that is accepted: float32 rounding stays far below
LARGEST_ONNX = 1_900_000_000  # bytes of weights in a .onnx file, which is limited to 2 GB; else a second file has them

Predict = Callable[[Tensor], Mapping[str, Tensor]]


def trace(model: InferenceModel, shape: tuple[int, int, int]) -> ExportedProgram:
    """Return the model as a graph for any number of images of `shape` (C, H, W).

    Raises `UserError` if it cannot be traced, for example because the architecture's code branches on values.
    """
    with quiet(), torch.no_grad():
        try:
            example = torch.rand(TRACED, *shape)
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim(BATCH, min=1)},))
        except Exception as error:  # torch.export raises many types of error
            raise UserError(
                f"backbone {model.backbone.name!r} cannot be exported for any number of images: {first_line(error)}. "
                "Leave these files out with --export.onnx false --export.torch_export false."
            ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names source files of this machine
    return program


def write_onnx(program: ExportedProgram, outputs: list[str], path: Path, metadata: str) -> list[Path]:
    """Write `path` with the given output names and return the written files.

    Raises `UserError` for a task called like the input, and for operations that ONNX lacks.
    """
    if INPUT in outputs:
        raise UserError(
            f"a task called {INPUT!r} cannot be exported to ONNX, where that is the input: use --export.onnx false."
        )
    with quiet():
        try:
            found = torch.onnx.export(
                program, (), input_names=[INPUT], dynamic_shapes=({0: BATCH},), dynamo=True, verbose=False
            )
        except Exception as error:
            text = f"the model cannot be written as ONNX: {first_line(error)}. Leave it out with --export.onnx false."
            raise UserError(text) from error
    assert found is not None  # the exporter returns a program with dynamo=True
    inner = [value for node in found.model.graph for value in node.outputs]
    for value in [*inner, *found.model.graph.initializers.values()]:
        value.name = f"graph/{value.name}"  # a task may be called like an operation or weight, but has no slash
    for value, name in zip(found.model.graph.outputs, outputs, strict=True):
        value.name = name
    found.model.metadata_props[METADATA] = metadata
    if sum(t.numel() * t.element_size() for t in program.state_dict.values()) < LARGEST_ONNX:
        atomic_write_bytes(path, found.model_proto.SerializeToString())
        written = [path]
    else:
        found.save(path, external_data=True)
        written = [path, path.with_name(f"{path.name}.data")]
    onnx.checker.check_model(path)
    return written


def write_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write PyTorch's exported program to `path`, with the metadata as an extra file."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={f"{METADATA}.json": metadata})
    atomic_write_bytes(path, buffer.getvalue())


def read_onnx(path: Path) -> Predict:
    """Return a function that runs an ONNX file with onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(images: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return predict


def read_program(path: Path) -> Predict:
    """Return a function that runs an exported program."""
    with quiet():
        return torch.export.load(path).module()


def check(
    name: str, model: InferenceModel, written: Predict, units: Mapping[str, float], shape: tuple[int, ...]
) -> float:
    """Return the largest difference between the outputs of the model and of the written file `name`, in `units`.

    Raises `UserError` if it is above `TOLERANCE`, and for other output names or shapes.
    """
    largest = 0.0
    for count in BATCHES:
        images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            own, found = model(images), written(images)
        if _shapes(own) != _shapes(found):
            raise UserError(f"{name} has other output names or shapes than the model for {count} images.")
        for output, value in own.items():
            unit = units.get(output, max(1.0, float(value.abs().max())))
            difference = float((value - found[output]).abs().max()) / unit
            if not difference <= TOLERANCE:  # true for NaN too
                raise UserError(
                    f"{name} differs from the model by {difference:.1e} on {output!r}; at most {TOLERANCE} is accepted."
                )
            largest = max(largest, difference)
    return largest


def _shapes(outputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in outputs.items()}


def difference_units(specs: Mapping[str, TaskHeadSpec]) -> dict[str, float]:
    """Return the unit of each task's differences: 1 for probabilities, the labels' standard deviation for numbers."""
    return {task: 1.0 if label_kind(spec.kind).has_classes else spec.scale for task, spec in specs.items()}


def first_line(error: Exception) -> str:
    """Return the first line of the original cause of an error, without the exporters' advice around it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of exporters: their warnings concern what is checked afterwards anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(before)
