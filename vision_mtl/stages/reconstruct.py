"""Draw images under any pretexts with a pretrained run: original, damaged, repaired, error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_USE, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("reconstruct")
@dataclass(frozen=True, kw_only=True)
class Reconstruct(Stage):
    """Load the run's weights, score its pretexts, draw a figure for each and one of what training added."""

    sections: ClassVar = ("data", "tasks", "pretexts", "backbone", "decoder", "runtime", "score")
    inherits_images: ClassVar = True
    results: ClassVar = (("figures", "a picture of each pretext"),)
    next_commands: ClassVar = AFTER_USE

    split: str = "test"
    """Split that the images are from: train, val or test."""
    num_images: int = 8
    """Images in each pretext's figure."""
    score: bool = True
    """Measure what training added too, on images of the split against rules fitted to training images."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.inference.pictures import repair_figure
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.pretext.mixture import Mixture
        from vision_mtl.recipes import build
        from vision_mtl.recipes.repair_scores import score_repairs, write_skill_figure
        from vision_mtl.recipes.start import start_network
        from vision_mtl.recipes.teacher import bind_teachers
        from vision_mtl.training.progress import phase
        from vision_mtl.viz.style import save_pictures

        if not config.start:
            raise UserError("reconstruct needs trained weights: give --init_from RUN, for example runs/pretrain-...")
        accelerator = config.runtime.accelerator(config.device)
        pretexts = build.build_pretexts(config)
        model = build.build_model(config, pretexts)
        load_fitting_weights(model, config.start, heads=list(pretexts))
        model.to(accelerator.device).eval()
        pool = build.open_pool(config, run)
        if len(pool.indices(self.split)) == 0:
            raise UserError(f"there is no image in split {self.split!r}; choose another with --reconstruct.split.")
        pretexts = bind_teachers(config, run, pool, pretexts, accelerator.device)

        metrics = {}
        if self.score:
            with torch.no_grad():
                mixture, start = Mixture(pretexts), start_network(config.init_from, run)
                metrics = score_repairs(config, run, model, pool, mixture, accelerator.autocast, start, self.split)
        for name, pretext in pretexts.items():
            mixture, skill = Mixture({name: pretext}), metrics.get("skill_learned", {})
            with phase(run.speaker, f"drawing {name}"):
                figure = repair_figure(model, pool, mixture, self.split, skill, num_images=self.num_images)
            if figure is None:
                run.warn(f"no picture of {name}: no image of split {self.split!r} suits it.")
            save_pictures(figure, run.figures, name)
        write_skill_figure(run, metrics, config.tasks, self.split)
        run.write_result("completed", metrics=metrics, data=pool.summary())
