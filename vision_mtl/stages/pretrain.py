"""Self-supervised pretraining: repair damaged images, then score the repairs on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vision_mtl.config.run_config import REPAIRS, RunConfig, Stage
from vision_mtl.config.stage import AFTER_PRETRAINING, STAGES
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("pretrain")
@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Train backbone, decoder and heads on the mixture of pretexts; score the repairs on the test images."""

    sections: ClassVar = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "runtime", "track", "score")
    # chosen on validation images for two slow cores: benchmarks/recipes/default.yaml
    defaults: ClassVar = {"optim.steps": 200, "optim.batch_size": 32, "optim.learning_rate": 1.2e-2}
    default_pretexts: ClassVar = REPAIRS | {
        "contrast": {
            "criterion": "coding_rate",
            "weight": 6.0,
            "smallest_crop": 1.0,  # crops taught less here
            "stretch": 1.0,
            "grey": 0.4,
        }
    }
    results: ClassVar = (
        ("figures/repairs.png", "test images, damaged and repaired"),
        ("figures/curves.png", "losses over the run"),
        ("figures/skill.png", "what training added, by source"),
    )
    next_commands: ClassVar = AFTER_PRETRAINING
    arm: ClassVar = ArmRole(
        gives_weights=True,
        noun="pretraining",
        options={"optim": {"steps": 300}},
        pictures={"repairs": "Repairs of test images"},
    )

    selection: str | None = None
    """Path of selection.parquet from a discover run (--selection for short): how often each damage of each image is
    drawn. The run also takes its pretexts and their options. null: draw by the pretexts' weights."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.recipes import build
        from vision_mtl.recipes.feature_scores import score_features
        from vision_mtl.recipes.fit import fit, write_result
        from vision_mtl.recipes.initial_weights import before_training
        from vision_mtl.recipes.pretrain_outputs import pretrain_actions, write_figures
        from vision_mtl.recipes.repair import build_network, build_trainer, resume_repair, training_images
        from vision_mtl.recipes.repair_scores import score_repairs
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.teacher import bind_teachers, teacher_runs
        from vision_mtl.training.progress import phase

        accelerator = config.runtime.accelerator(config.device)
        pretexts = build.build_pretexts(config)
        model = build_network(config, pretexts, run)
        start = before_training(model)
        pool = build.open_pool(config, run)
        indices = training_images(config, pool)
        remember_images(run, pool, indices, config.init_from, *teacher_runs(pretexts))
        pretexts = bind_teachers(config, run, pool, pretexts, accelerator.device)

        trainer = build_trainer(config, run, pool, indices, model, pretexts, accelerator, self.selection)
        memory = resume_repair(trainer, run, config)
        description = build.describe_model(config, model, pool, run.about.get("teacher"))
        fit(run, trainer, config.track, description, memory, pretrain_actions(trainer, pool, config.track))

        probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]
        mixture = trainer.objective.mixture
        skills = score_repairs(config, run, trainer.scored_model, pool, mixture, accelerator.autocast, start)
        features = score_features(config, run, trainer.scored_model, start, pool, accelerator.autocast)
        metrics = {**skills, "features": features, "online": probes[-1] if probes else {}}
        with phase(run.speaker, "drawing figures"):
            write_figures(run, trainer, pool, metrics, config.tasks)
        write_result(run, trainer, metrics, pool.summary())
