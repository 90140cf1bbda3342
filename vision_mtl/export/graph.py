"""The model as one file without Python: ONNX, and PyTorch's own exported program; each is checked after writing.

Source paths of the machine, which both formats record, are taken out.
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
BATCH = "N"  # the free number of images
METADATA = "vision_mtl"  # key of the JSON text in ONNX metadata; with .json, the file in an exported program
BATCHES = (1, 5)  # numbers of images that an exported file is checked on; it is traced on another
TRACED = 2
LARGEST = 1e-4  # difference to the model's own answers that is let through: float32 rounding stays far below
LARGEST_ONNX = 1_900_000_000  # bytes of weights inside a .onnx file, whose format ends at 2 GB; else they lie beside it

Answers = Callable[[Tensor], Mapping[str, Tensor]]


def trace(model: InferenceModel, shape: tuple[int, int, int]) -> ExportedProgram:
    """The model's arithmetic for any number of images of `shape` (C, H, W). Raises `UserError` if it has no such form.

    For instance where an architecture's code branches on values.
    """
    with quiet(), torch.no_grad():
        try:
            example = torch.rand(TRACED, *shape)
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim(BATCH, min=1)},))
        except Exception as error:  # torch.export refuses with many kinds of error
            raise UserError(
                f"backbone {model.backbone.name!r} cannot be exported for any number of images: {first_line(error)}. "
                "Leave these files out with --export.onnx false --export.torch_export false."
            ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names source files of this machine
    return program


def write_onnx(program: ExportedProgram, outputs: list[str], path: Path, metadata: str) -> list[Path]:
    """Write `path`, its outputs named `outputs`; returns the files written. Raises `UserError` if ONNX lacks a part."""
    if INPUT in outputs:
        raise UserError(
            f"a task must not be called {INPUT!r} in ONNX, where that is the input: use --export.onnx false."
        )
    with quiet():
        try:
            found = torch.onnx.export(
                program, (), input_names=[INPUT], dynamic_shapes=({0: BATCH},), dynamo=True, verbose=False
            )
        except Exception as error:
            text = f"the model cannot be written as ONNX: {first_line(error)}. Leave it out with --export.onnx false."
            raise UserError(text) from error
    assert found is not None  # what the exporter gives with dynamo=True
    inner = [value for node in found.model.graph for value in node.outputs]
    for value in [*inner, *found.model.graph.initializers.values()]:
        value.name = f"graph/{value.name}"  # a task may have an operation's or a weight's name; no task has a slash
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


def read_onnx(path: Path) -> Answers:
    """The written ONNX file as a function, run by onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def answers(images: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return answers


def read_program(path: Path) -> Answers:
    """The written exported program as a function."""
    with quiet():
        return torch.export.load(path).module()


def check(
    what: str, model: InferenceModel, written: Answers, units: Mapping[str, float], shape: tuple[int, ...]
) -> float:
    """Largest difference between the model's answers and the written file's, each in its unit.

    Raises `UserError` if it is above `LARGEST`, and for other names or shapes.
    """
    largest = 0.0
    for count in BATCHES:
        images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            own, found = model(images), written(images)
        if {name: tuple(value.shape) for name, value in own.items()} != {n: tuple(v.shape) for n, v in found.items()}:
            raise UserError(f"{what} answers {count} images in another form than the model itself.")
        for name, value in own.items():
            difference = float((value - found[name]).abs().max()) / units.get(name, max(1.0, float(value.abs().max())))
            if not difference <= LARGEST:  # NaN is no agreement either
                raise UserError(
                    f"{what} differs from the model by {difference:.1e} on {name!r}; at most {LARGEST} is let through."
                )
            largest = max(largest, difference)
    return largest


def difference_units(answers: Mapping[str, TaskHeadSpec]) -> dict[str, float]:
    """What a difference is measured in: 1 for probabilities, the labels' standard deviation for numbers."""
    # / 100: float32 cannot tell numbers apart that differ by less than a ten-millionth of their size
    return {
        task: 1.0 if label_kind(answer.kind).has_classes else max(answer.scale, abs(answer.offset) / 100)
        for task, answer in answers.items()
    }


def first_line(error: Exception) -> str:
    """An error in one line: what first went wrong, without the exporters' advice to programmers around it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters from talking: they warn of what is checked afterwards anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(before)
