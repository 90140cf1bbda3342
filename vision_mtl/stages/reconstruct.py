"""Pictures of any images under any pretexts: original, damaged, repaired, error, from a pretrained run."""

from __future__ import annotations

import torch

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.inference.pictures import repair_figure
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes import build
from vision_mtl.training.runtime import Runtime
from vision_mtl.viz.curves import skill_figure

SECTIONS = ("data", "tasks", "pretexts", "backbone", "decoder", "runtime")


@STAGES.register("reconstruct")
def reconstruct(
    config: RunConfig,
    run: Run,
    *,
    split: str = "test",  # which images: train, val or test
    num_images: int = 8,  # pictures a pretext
    score: bool = True,  # measure the skill on all images of the split as well
) -> None:
    """Load the run's weights, score its pretexts, draw one figure for each and one of all."""
    if not config.start:
        raise UserError("reconstruct needs trained weights: give --init_from RUN, for example runs/pretrain-...")
    accelerator = Runtime(**config.runtime).accelerator(config.device)
    pretexts = build.build_pretexts(config)
    model = build.build_model(config, pretexts)
    build.load_weights(model, config.start, heads=list(pretexts))
    model.to(accelerator.device).eval()
    pool = build.open_pool(config, run)
    if len(pool.indices(split)) == 0:
        raise UserError(f"there is no image in split {split!r}; choose another with --reconstruct.split.")
    mixture = Mixture(pretexts)
    with torch.no_grad():
        metrics = score_pretexts(model, pool, mixture, accelerator.autocast, split) if score else {}
    for name in pretexts:
        figure = repair_figure(
            model, pool, Mixture({name: pretexts[name]}), split, metrics.get("skill", {}), num_images=num_images
        )
        if figure is None:
            run.warn(f"no picture of {name}: no image of split {split!r} suits it.")
        else:
            figure.savefig(run.figures / f"{name}.png", dpi=150)
    if (
        figure := skill_figure(metrics.get("skill_by_source", {}), metrics.get("skill_untrained_by_source", {}))
    ) is not None:
        figure.savefig(run.figures / "skill.png", dpi=150)
    run.write_result("completed", metrics=metrics, data=pool.summary())
