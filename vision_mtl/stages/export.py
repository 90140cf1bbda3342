"""Write backbone and multi-task model as files that need no vision_mtl: timm, ONNX, torch.export, and a model card."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_USE, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import Run


@STAGES.register("export")
@dataclass(frozen=True, kw_only=True)
class Export(Stage):
    """Restore the model, write each file, compare its outputs with the model's, describe all files in a card.

    The comparison is made twice: on random pixels, and from the bytes of image files, preprocessing included.

    Everything runs on the CPU in float32, whatever `device` says: the files must not depend on the machine.
    """

    sections: ClassVar = ()
    results: ClassVar = (
        ("MODEL_CARD.md", "the model, and how to load each file"),
        ("load_image.py", "from an image file to the model's input"),
        ("backbone", "for timm"),
        ("model.onnx", "for onnxruntime"),
        ("model.pt2", "for PyTorch alone"),
    )
    next_commands: ClassVar = AFTER_USE

    onnx: bool = True
    """Write model.onnx, the multi-task model for onnxruntime and other ONNX runtimes."""
    torch_export: bool = True
    """Write model.pt2, the multi-task model for PyTorch without this project."""

    check_images: int = 200
    """Images of the run to check the files on: by the exported files and by `predict`, from the same bytes. 0: none."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.export.backbone import backbone_difference, nearest_filter, transform_difference, write_backbone
        from vision_mtl.export.files import describe_export, write_graphs
        from vision_mtl.export.from_files import check_from_files, header_sizes, run_samples
        from vision_mtl.export.graph import TRACED
        from vision_mtl.export.loading import LOAD_IMAGE, loading_code, run_loader
        from vision_mtl.export.model_card import card_text, read_origin
        from vision_mtl.inference.image_files import frame_of
        from vision_mtl.inference.restore import restore_model
        from vision_mtl.models.inference_model import FEATURES, InferenceModel
        from vision_mtl.recipes.initial_weights import report_weights
        from vision_mtl.training.progress import phase

        if not config.init_from:
            raise UserError("export needs trained weights: give --init_from RUN, for example runs/finetune-...")
        if self.check_images < 0:
            raise UserError(f"export.check_images must be 0 or more; found {self.check_images}.")
        started = time.perf_counter()
        with phase(run.speaker, f"opening {config.init_from}"):
            model, state = restore_model(config.init_from)
        report_weights(run, model.backbone, is_new=False)
        if not run.is_main:
            return  # one process writes
        if not model.task_specs and (self.onnx or self.torch_export):
            run.say(f"{config.init_from} has no task heads: the exported model gives {FEATURES!r}, pooled.")

        about = describe_export(model, state)
        frame = frame_of(state, str(config.init_from), model.backbone.image_size, model.backbone.in_chans)
        with phase(run.speaker, "listing images of the run"):
            samples, missing = run_samples(state, self.check_images)
            filter_name = nearest_filter(header_sizes(samples), model.backbone.image_size)
        with phase(run.speaker, "exporting the backbone"):
            written = write_backbone(model.backbone, run.folder / "backbone", about["fit"], filter_name)
            generator = torch.Generator().manual_seed(0)
            images = torch.rand(TRACED, about["channels"], *about["image_size"], generator=generator)
            differences = {"timm": backbone_difference(model.backbone, run.folder / "backbone", images)}
        with phase(run.speaker, "exporting the graphs"):
            files, graph_differences, graphs = write_graphs(
                InferenceModel(model).eval(), about, run.folder, self.onnx, self.torch_export
            )
        loader = run.folder / LOAD_IMAGE
        atomic_write_text(loader, loading_code(about))
        written += [*files, loader]
        with phase(run.speaker, "checking the graphs on images of the run"):
            check = check_from_files(model, frame, samples, run_loader(loader), graphs, missing)
        for text in check.warnings():
            run.warn(text)
        with phase(run.speaker, "comparing timm's preprocessing"):
            transform = transform_difference(model.backbone, run.folder / "backbone", frame, samples)
        card = run.folder / "MODEL_CARD.md"
        origin = read_origin(Path(config.init_from).expanduser())
        atomic_write_text(card, card_text(origin, state, about, [path.name for path in written], check, transform))

        sizes = {path.relative_to(run.folder).as_posix(): path.stat().st_size for path in [*written, card]}
        metrics = {"files": sizes, "differences": differences | graph_differences, "from_files": check.metrics}
        run.write_result("completed", metrics=metrics, seconds=time.perf_counter() - started)
