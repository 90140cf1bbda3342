"""Self-supervised pretraining: repair damaged images, then score the repairs on images never trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.run import Run
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.preferring import prefer
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.discovery.selection import read_selection
from vision_mtl.evaluation.features import Autocast, extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.online import online_probe
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.preference import mixture_shares
from vision_mtl.stages import build
from vision_mtl.stages.config import RunConfig
from vision_mtl.stages.fit import Action, fit, make_trainer, resume, write_result
from vision_mtl.stages.guards import measure_rank, remember_images
from vision_mtl.stages.pictures import repair_figure
from vision_mtl.stages.registry import STAGES
from vision_mtl.stages.tuned import tuned
from vision_mtl.training.loop import Progress, Trainer
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.repair import PretextObjective, RepairFeed, chance_losses
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Track, Tracker
from vision_mtl.viz.curves import curves_figure, skill_figure

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
    memory = {"chance": objective.chance}
    resume(trainer, run, memory, config)
    objective.chance = memory["chance"]
    fit(run, trainer, track, build.describe_model(config, model, pool), memory, watch(trainer, pool, objective, track))
    probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]

    skills = score_pretexts(trainer.scored_model, pool, objective.mixture, trainer.accelerator.autocast)
    metrics = {**skills, "online": probes[-1] if probes else {}}
    draw(run, trainer, pool, objective, metrics)
    write_result(run, trainer, metrics, pool.summary())


def training_images(config: RunConfig, pool: Pool) -> torch.Tensor:
    """(n,) indices that pretraining may see: the training images, and the test images only if the config says so.

    Raises `UserError` if there is none.
    """
    indices = pool.indices("train")
    if config.data.get("include_test"):
        indices = torch.cat((indices, pool.indices("val"), pool.indices("test"))).sort().values
    if len(indices) == 0:
        raise UserError("there is no image to train on: every image of data.unlabelled and tasks is held out.")
    return indices


def build_objective(
    config: RunConfig, run: Run, pool: Pool, pretexts: dict[str, Pretext], indices: torch.Tensor
) -> PretextObjective:
    """The mixture in units of chance, measured on `indices` (n,); a pretext that no image suits is left out, and
    said."""
    sample = spread_evenly(indices, CHANCE_IMAGES)
    chance = chance_losses(Mixture(pretexts), pool.gather(sample), Keys(config.seed, 0, sample))
    for name in pretexts.keys() - chance.keys():
        run.warn(f"pretext {name} is left out: none of {len(sample)} training images looked at suits it.")
    return PretextObjective(Mixture({name: pretexts[name] for name in pretexts if name in chance}), chance)


def build_network(config: RunConfig, pretexts: dict[str, Pretext]) -> SharedModel:
    """A network for the pretexts; fresh, or with the weights of `--init_from`. Built before the images are decoded, so
    that a wrong backbone is found first."""
    torch.manual_seed(config.seed)
    model = build.build_model(config, pretexts)
    if config.start:
        build.load_weights(model, config.start)
    return model


def build_trainer(
    config: RunConfig,
    run: Run,
    pool: Pool,
    indices: torch.Tensor,
    model: SharedModel,
    pretexts: dict[str, Pretext],
    accelerator: Accelerator,
    selection: str | None = None,
) -> Trainer:
    """What trains `model` on the images `indices` (n,), their damage drawn by the selection file where one is given."""
    objective = build_objective(config, run, pool, pretexts, indices)
    weights = prefer_damages(objective, selection, pool, config, indices) if selection else None
    feed = repair_feed(config, pool, indices, Optim(**config.optim), accelerator, weights)
    return make_trainer(config, accelerator, model, objective, feed)


def repair_feed(
    config: RunConfig,
    pool: Pool,
    indices: torch.Tensor,
    optim: Optim,
    accelerator: Accelerator,
    weights: torch.Tensor | None = None,
) -> RepairFeed:
    """Batches of the images `indices` (n,) for this process, drawn by `weights` (n,) where some are given."""
    share = share_of_batch(optim, accelerator.num_processes)
    place = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    batches = Batches(indices, share, config.seed, **place, weights=weights)
    return RepairFeed(pool, batches, config.seed, accelerator.device, config.data["num_workers"])


def prefer_damages(
    objective: PretextObjective, selection: str, pool: Pool, config: RunConfig, indices: torch.Tensor
) -> torch.Tensor:
    """Make the objective's mixture draw by the selection file; (n,) how often each of `indices` is to be drawn.

    Raises `UserError` if it weighs none of them.
    """
    chosen = read_selection(Path(selection).expanduser())
    pretexts = objective.mixture.pretexts
    preference = prefer(chosen, pool, pretexts, config.pretexts)
    weights = preference.image_weights(mixture_shares(pretexts, pool.shape))[indices]
    if not bool(weights.any()):
        raise UserError(f"the selection {selection!r} has no weight above 0 for any of {len(indices)} training images.")
    objective.mixture = Mixture(pretexts, preference)
    return weights


def share_of_batch(optim: Optim, num_processes: int) -> int:
    """Images a step of each process. Raises `UserError` if the batch cannot be dealt out evenly."""
    if optim.batch_size % num_processes:
        raise UserError(
            f"optim.batch_size must be a multiple of the {num_processes} processes; found {optim.batch_size}."
        )
    return optim.batch_size // num_processes


def watch(trainer: Trainer, pool: Pool, objective: PretextObjective, track: Track) -> list[Action]:
    """The online probe and the pictures, as often as `track` says."""

    def probe(progress: Progress, tracker: Tracker) -> None:
        backbone, autocast = trainer.scored_model.backbone, trainer.accelerator.autocast
        found = online_probe(backbone, pool, autocast)
        rank = measure_rank(tracker.run, backbone, pool, progress.step, autocast)
        tracker.run.log({"kind": "probe", "step": progress.step, "tasks": found, "rank": rank})
        tracker.scalars(progress.step, {f"knn/{task}": score["knn"] for task, score in found.items()})
        if trainer.optim.progress(progress.step, progress.seconds) >= 1.0:
            project_features(tracker, backbone, pool, progress.step, autocast)

    def picture(progress: Progress, tracker: Tracker) -> None:
        figure = repair_figure(trainer.scored_model, pool, objective.mixture, "val")
        if figure is not None:
            tracker.figure(progress.step, "repairs", figure)

    return [(track.num_probes, probe), (track.num_pictures, picture)]


def project_features(tracker: Tracker, backbone: Backbone, pool: Pool, step: int, autocast: Autocast) -> None:
    """Hand the features of some validation images of each task to whoever shows them (TensorBoard's projector)."""
    if not tracker.recorders:
        return
    clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=autocast)
    for task, labels in pool.labels.items():
        chosen = spread_evenly(pool.indices("val", task=task), PROJECTED_IMAGES)
        if len(chosen):
            features = extract_features(clean, pool, chosen, autocast=autocast)
            names = [pool.class_names[task][number] for number in labels[chosen.numpy()]]
            tracker.embedding(step, f"features_{task}", features, names, pool.gather(chosen))


def draw(run: Run, trainer: Trainer, pool: Pool, objective: PretextObjective, metrics: dict[str, Any]) -> None:
    """The run's figures: repairs of test images, curves, skill."""
    if not run.is_main:
        return
    figures = {
        "repairs": repair_figure(trainer.scored_model, pool, objective.mixture, "test", metrics.get("skill", {})),
        "curves": curves_figure(run.records()),
        "skill": skill_figure(metrics.get("skill_by_source", {}), metrics.get("skill_untrained_by_source", {})),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(run.figures / f"{name}.png", dpi=150)
