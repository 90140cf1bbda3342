"""Every head's answer for image files, folders or standard input: CSV, JSON, masks and a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES, Stage
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("predict")
@dataclass(frozen=True, kw_only=True)
class Predict(Stage):
    """Restore the model, find the images, answer batch by batch into the files, then show what was said."""

    sections: ClassVar = ("runtime",)
    results: ClassVar = (
        ("predictions.csv", "a row an image"),
        ("predictions.json", "the same with all probabilities"),
        ("figures/predictions.png", "a contact sheet"),
    )

    images: list[str] | None = None
    """Image files, folders, globs, or - for one encoded image on standard input."""
    batch_size: int = 64
    """Images decoded and answered at a time; two batches are in memory."""
    num_workers: int = 0
    """Threads that decode; 0: one a core."""
    num_pictures: int = 20
    """Pictures on the contact sheet, at even steps through the images; 0: no sheet."""
    skip_unreadable: bool = False
    """Leave out files that cannot be decoded instead of ending with their list."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.inference.image_files import Frame, decoded_batches, find_inputs, require_counts
        from vision_mtl.inference.prediction_files import PredictionFiles, task_outputs
        from vision_mtl.inference.predictor import Predictor
        from vision_mtl.recipes.prediction import Asked, open_heads

        require_counts(
            batch_size=(self.batch_size, 1), num_workers=(self.num_workers, 0), num_pictures=(self.num_pictures, 0)
        )
        if not self.images:
            raise UserError("predict needs images: give --predict.images PATH, for example a folder, or - for a pipe.")
        model, state = open_heads(config)
        if not run.is_main:
            return  # one process writes, and answering needs no more
        files = find_inputs(self.images)
        frame = Frame(config.image_size, model.backbone.in_chans, state["data"]["fit"])
        asked = Asked(run, task_outputs(model.task_specs, state), frame, files, self.num_pictures)
        ask = Predictor(model, config.runtime, config.device)
        with PredictionFiles(run.folder, asked.questions, frame.fit) as written, asked:
            for batch in decoded_batches(files, frame, self.batch_size, self.num_workers):
                asked.answer(batch, ask, written)
        asked.show()
        asked.finish(self.skip_unreadable, written.count)
