"""Self-supervised pretraining: repair damaged images, then score the repairs on images never trained on."""

from __future__ import annotations

from typing import Any

import torch

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.run import Run
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.evaluation.online import online_probe
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.stages import build
from vision_mtl.stages.config import RunConfig
from vision_mtl.stages.pictures import repair_figure
from vision_mtl.stages.registry import STAGES
from vision_mtl.training.checkpoint import load_optimiser, newest_checkpoint, read_state, read_tensors, save_checkpoint
from vision_mtl.training.loop import NonFiniteLoss, Progress, Trainer
from vision_mtl.training.objective import PretextObjective, chance_losses
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Milestones, Track, Tracker
from vision_mtl.viz.curves import curves_figure, skill_figure

SECTIONS = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "runtime", "track")

CHANCE_IMAGES = 512  # training images that chance losses are measured on: their error is then a few per cent


@STAGES.register("pretrain")
def pretrain(config: RunConfig, run: Run) -> None:
    """Open the images, build the model, train, score on the test images, draw, write the result."""
    optim, track, runtime = Optim(**config.optim), Track(**config.track), Runtime(**config.runtime)
    accelerator = runtime.accelerator(config.device)
    torch.manual_seed(config.seed)
    pretexts = build.build_pretexts(config)
    model = build.build_model(config, pretexts)
    pool = build.open_pool(config, run)
    indices = training_images(config, pool)

    objective = build_objective(config, run, pool, pretexts, indices)
    share = optim.batch_size // accelerator.num_processes
    batches = Batches(indices, share, config.seed, rank=accelerator.process_index, world_size=accelerator.num_processes)
    if config.init_from:
        run.say(f"initialised from {build.load_weights(model, config.init_from)}")
    trainer = Trainer(
        model,
        objective,
        pool,
        batches,
        optim,
        accelerator,
        runtime.layout(model.backbone),
        config.seed,
        runtime.compile,
    )
    resume(trainer, run)
    online = train(config, run, trainer, track)

    skills = score_pretexts(trainer.scored_model, pool, objective.mixture, accelerator.autocast)
    metrics = {**skills, "online": online}
    draw(run, trainer, metrics)
    progress = trainer.progress
    run.write_result(
        "completed",
        metrics=metrics,
        data=pool.summary(),
        seconds=progress.seconds,
        images_seen=progress.images_seen,
        images_per_second=progress.images_seen / max(progress.seconds, 1e-9),
    )


def training_images(config: RunConfig, pool: Pool) -> torch.Tensor:
    """(n,) indices that pretraining may see: the training images, and the test images only if the config says so."""
    indices = pool.indices("train")
    if config.data.get("include_test"):
        indices = torch.cat((indices, pool.indices("val"), pool.indices("test"))).sort().values
    if len(indices) == 0:
        raise UserError("there is no image to train on: every image of data.unlabelled and tasks is held out.")
    return indices


def build_objective(
    config: RunConfig, run: Run, pool: Pool, pretexts: dict[str, Pretext], indices: torch.Tensor
) -> PretextObjective:
    """The mixture in units of chance; a pretext that no image suits (colour in a grey pool) is left out, and said."""
    sample = spread_evenly(indices, CHANCE_IMAGES)
    chance = chance_losses(Mixture(pretexts), pool.gather(sample), Keys(config.seed, 0, sample))
    for name in pretexts.keys() - chance.keys():
        run.warn(f"pretext {name} is left out: none of {len(sample)} training images looked at suits it.")
    return PretextObjective(Mixture({name: pretexts[name] for name in pretexts if name in chance}), chance)


def resume(trainer: Trainer, run: Run) -> None:
    """Go on from the run's newest checkpoint, if it has one."""
    path = newest_checkpoint(run.checkpoints)
    if path is None:
        run.rewind(0)
        return
    state = read_state(path)
    trainer.model.load_state_dict(read_tensors(path, "model"))
    if trainer.average is not None:
        trainer.average.module.load_state_dict(read_tensors(path, "average"))
    load_optimiser(trainer.optimiser, read_tensors(path, "optimiser"))
    trainer.objective.chance.update(state["chance"])
    trainer.progress = Progress(**state["progress"])
    run.rewind(trainer.progress.step)
    run.say(f"resumed from {path.name}, step {trainer.progress.step}")


def train(config: RunConfig, run: Run, trainer: Trainer, track: Track) -> dict[str, Any]:
    """Run the loop, with its records, pictures, probes and checkpoints; returns the last probe."""
    description = build.describe_model(config, trainer.model, trainer.pool)

    def save() -> None:
        if trainer.accelerator.is_main_process:
            state = {
                **description,
                "step": trainer.progress.step,
                "progress": vars(trainer.progress),
                "chance": trainer.objective.chance,
            }
            average = None if trainer.average is None else trainer.average.module
            save_checkpoint(
                run.checkpoints, state, trainer.model, trainer.optimiser, average, keep=track.keep_checkpoints
            )

    def probe(progress: Progress) -> None:
        backbone = trainer.scored_model.backbone
        found = online_probe(backbone, trainer.pool, trainer.accelerator.autocast)
        if found:
            run.log({"kind": "probe", "step": progress.step, "tasks": found})
            tracker.scalars(progress.step, {f"knn/{task}": s["knn"] for task, s in found.items()})

    def picture(progress: Progress) -> None:
        figure = repair_figure(trainer.scored_model, trainer.pool, trainer.objective.mixture, "val")
        if figure is not None:
            tracker.figure(progress.step, "repairs", figure)

    main = trainer.accelerator.is_main_process
    actions = [Milestones(track.num_probes, probe), Milestones(track.num_pictures, picture)] if main else []
    tracker = Tracker(run, track, trainer.optim, trainer.progress, save, actions, main)
    try:
        trainer.fit(tracker)
    except KeyboardInterrupt:
        save()
        raise
    except NonFiniteLoss as error:
        where = run.folder / "failed_batch.pt"
        torch.save({"step": error.step, "indices": error.indices, "images": error.images}, where)
        raise UserError(f"{error} Its images are kept in {where}.") from error
    finally:
        tracker.close()
    save()
    probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]
    return probes[-1] if probes else {}


def draw(run: Run, trainer: Trainer, metrics: dict[str, Any]) -> None:
    """The run's figures: repairs of test images, curves, skill."""
    figures = {
        "repairs": repair_figure(
            trainer.scored_model, trainer.pool, trainer.objective.mixture, "test", metrics.get("skill", {})
        ),
        "curves": curves_figure(run.records()),
        "skill": skill_figure(metrics.get("skill_by_source", {}), metrics.get("skill_untrained_by_source", {})),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(run.figures / f"{name}.png", dpi=150)
