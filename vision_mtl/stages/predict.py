"""Write every head's prediction for image files, folders or standard input: CSV, JSON, masks and a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_USE, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("predict")
@dataclass(frozen=True, kw_only=True)
class Predict(Stage):
    """Restore the model, find the images, predict and write them batch by batch, print the first predictions."""

    sections: ClassVar = ("runtime",)
    results: ClassVar = (
        ("predictions.csv", "one row per image"),
        ("predictions.json", "the same with all probabilities"),
        ("figures/predictions.png", "a contact sheet"),
    )
    next_commands: ClassVar = AFTER_USE

    images: list[str] | None = None
    """Image files, folders or globs; - reads one encoded image from standard input."""
    batch_size: int = 64
    """Images to decode and predict at a time, 1 or more; two batches are in memory."""
    num_workers: int = 0
    """Decoding threads. 0: one per core."""
    num_pictures: int = 20
    """Pictures on the contact sheet, evenly spaced over the images. 0: no sheet."""
    value_range: Literal["full"] | list[float] | None = None
    """Values of deep images (more than 8 bits, floats) that become 0 and 1: two numbers, or full for the whole range of
    the integer type. null: the range that the run was trained with."""
    skip_unreadable: bool = False
    """Skip files that cannot be decoded, with a warning; without it, they are an error that lists them."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.data.findings import Findings
        from vision_mtl.inference.image_files import decoded_batches, find_inputs, frame_of, require_counts
        from vision_mtl.inference.prediction_files import PredictionFiles, task_outputs
        from vision_mtl.inference.predictor import Predictor
        from vision_mtl.recipes.prediction import PredictionReport, open_heads

        require_counts(
            batch_size=(self.batch_size, 1), num_workers=(self.num_workers, 0), num_pictures=(self.num_pictures, 0)
        )
        if not self.images:
            raise UserError("predict needs images: give --predict.images PATH, for example a folder, or - for a pipe.")
        model, state = open_heads(config)
        if not run.is_main:
            return  # one process predicts and writes
        findings = Findings()
        files = find_inputs(self.images, findings)
        findings.raise_errors()
        for finding in findings.all:
            (run.say if finding.severity == "note" else run.warn)(str(finding))
        where, channels = str(config.init_from), model.backbone.in_chans
        frame = frame_of(state, where, config.image_size, channels, self.value_range, "predict.value_range")
        predictor = Predictor(model, config.runtime, config.device)
        report = PredictionReport(run, task_outputs(model.task_specs, state), files, self.num_pictures, frame)
        with PredictionFiles(run.folder, report.outputs, frame.fit) as output_files, report:
            for batch in decoded_batches(files, frame, self.batch_size, self.num_workers):
                report.predict_batch(batch, predictor, output_files)
        report.show()
        report.write_result(self.skip_unreadable, output_files.count)
