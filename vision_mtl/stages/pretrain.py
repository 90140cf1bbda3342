"""Self-supervised pretraining: repair damaged images, then score the repairs on images never trained on."""

from __future__ import annotations

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.run import Run
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import fit, resume, write_result
from vision_mtl.recipes.pretrain_outputs import draw, watch
from vision_mtl.recipes.repair import build_network, build_trainer, training_images
from vision_mtl.recipes.run_warnings import remember_images
from vision_mtl.recipes.tuned import tuned
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Track

SECTIONS = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "runtime", "track")

PROJECTED_IMAGES = 200  # validation images of a task whose features are shown in TensorBoard
CHANCE_IMAGES = 512  # training images that chance losses are measured on: their error is then a few per cent


@STAGES.register("pretrain")
def pretrain(
    config: RunConfig,
    run: Run,
    *,
    selection: str | None = None,  # selection.parquet of a discover run: how often which damage of which image is
    # drawn; --selection for short. Its pretexts and their options are taken over
) -> None:
    """Open the images, build the model, train, score on the test images, draw, write the result."""
    track, accelerator = Track(**config.track), Runtime(**config.runtime).accelerator(config.device)
    pretexts = build.build_pretexts(config)
    model = build_network(config, pretexts)
    pool = build.open_pool(config, run)
    indices = training_images(config, pool)
    remember_images(run, pool, indices, config.init_from)

    trainer = build_trainer(config, run, pool, indices, model, pretexts, accelerator, selection)
    trainer = tuned(config, run, trainer)
    objective = trainer.objective
    memory = {"chance": objective.chance_losses}
    resume(trainer, run, memory, config)
    objective.chance_losses = memory["chance"]
    fit(run, trainer, track, build.describe_model(config, model, pool), memory, watch(trainer, pool, objective, track))
    probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]

    skills = score_pretexts(trainer.scored_model, pool, objective.mixture, trainer.accelerator.autocast)
    metrics = {**skills, "online": probes[-1] if probes else {}}
    draw(run, trainer, pool, objective, metrics)
    write_result(run, trainer, metrics, pool.summary())
