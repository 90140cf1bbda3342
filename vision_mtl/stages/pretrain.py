"""Self-supervised pretraining: repair damaged images, then score the repairs on images never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import AFTER_PRETRAINING, STAGES, Stage
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("pretrain")
@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Open the images, build the model, train, score on the test images, draw, write the result."""

    sections: ClassVar = (
        "data",
        "tasks",
        "pretexts",
        "backbone",
        "decoder",
        "optim",
        "runtime",
        "track",
    )
    results: ClassVar = (
        ("figures/repairs.png", "test images, damaged and repaired"),
        ("figures/curves.png", "losses over the run"),
        ("figures/skill.png", "skill by source"),
    )
    next_commands: ClassVar = AFTER_PRETRAINING
    arm: ClassVar = ArmRole(
        gives_weights=True, options={"optim": {"steps": 300}}, pictures={"repairs": "Repairs of test images"}
    )

    selection: str | None = None
    """Selection.parquet of a discover run: how often which damage of which image is drawn; --selection for short. Its
    pretexts and their options are taken over."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.discovery.score import score_pretexts
        from vision_mtl.recipes import build
        from vision_mtl.recipes.fit import fit, resume, write_result
        from vision_mtl.recipes.pretrain_outputs import draw, watch
        from vision_mtl.recipes.repair import build_network, build_trainer, training_images
        from vision_mtl.recipes.run_warnings import remember_images

        track, accelerator = config.track, config.runtime.accelerator(config.device)
        pretexts = build.build_pretexts(config)
        model = build_network(config, pretexts)
        pool = build.open_pool(config, run)
        indices = training_images(config, pool)
        remember_images(run, pool, indices, config.init_from)

        trainer = build_trainer(config, run, pool, indices, model, pretexts, accelerator, self.selection)
        objective = trainer.objective
        memory = {"chance": objective.chance_losses}
        resume(trainer, run, memory, config)
        objective.chance_losses = memory["chance"]
        fit(
            run,
            trainer,
            track,
            build.describe_model(config, model, pool),
            memory,
            watch(trainer, pool, objective, track),
        )
        probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]

        skills = score_pretexts(trainer.scored_model, pool, objective.mixture, trainer.accelerator.autocast)
        metrics = {**skills, "online": probes[-1] if probes else {}}
        draw(run, trainer, pool, objective, metrics)
        write_result(run, trainer, metrics, pool.summary())
