"""Training on damaged images: which images, the objective, batches, the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.run import Run
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.preferring import prefer
from vision_mtl.discovery.selection import read_selection
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.restore import load_fitting_weights
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.preference import mixture_shares
from vision_mtl.recipes import build
from vision_mtl.recipes.band_statistics import fit_statistics
from vision_mtl.recipes.fit import make_trainer, resume
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.progress import phase
from vision_mtl.training.repair import PretextObjective, RepairFeed, measure_chance_losses

CHANCE_IMAGES = 512  # training images to measure chance losses on: enough for an error of a few per cent
RepairTrainer = Trainer[PretextObjective]


def training_images(config: RunConfig, pool: Pool) -> torch.Tensor:
    """Return the indices (n,) of the images to pretrain on: training images; all with `data.include_test`.

    Raises `UserError` if there is none.
    """
    indices = pool.indices("train")
    if config.data.include_test:
        indices = torch.cat((indices, pool.indices("val"), pool.indices("test"))).sort().values
    if len(indices) == 0:
        raise UserError("there is no image to train on: every image of data.unlabelled and tasks is held out.")
    return indices


def build_repair_objective(
    config: RunConfig, run: Run, pool: Pool, pretexts: dict[str, Pretext], indices: torch.Tensor
) -> PretextObjective:
    """Return the pretexts' objective, with chance losses measured on the images `indices` (n,).

    Leaves out a pretext that suits none of the measured images, with a warning.
    """
    with phase(run.speaker, "measuring chance losses"):
        objective = measure_objective(pretexts, pool, indices, config.seed)
    for name in pretexts.keys() - objective.chance_losses.keys():
        count = min(len(indices), CHANCE_IMAGES)
        run.warn(f"pretext {name} is left out: it suits none of {count} sampled training images.")
    return objective


def measure_objective(
    pretexts: Mapping[str, Pretext], pool: Pool, indices: torch.Tensor, seed: int
) -> PretextObjective:
    """Return the objective of the pretexts that suit some of the images `indices` (n,), with their chance losses."""
    sample = spread_evenly(indices, CHANCE_IMAGES)
    chance_losses = measure_chance_losses(Mixture(pretexts), pool.gather(sample), Keys(seed, 0, sample))
    kept = {name: pretext for name, pretext in pretexts.items() if name in chance_losses}
    return PretextObjective(Mixture(kept), chance_losses)


def build_network(config: RunConfig, pretexts: dict[str, Pretext], run: Run | None = None) -> SharedModel:
    """Return a network for the pretexts, with random weights or those of `backbone.pretrained` or `--init_from`.

    Call it before decoding the images, so that an unusable backbone is found at once. `run` is the run that may resume
    without its initial weights.
    """
    torch.manual_seed(config.seed)
    model = build.build_model(config, pretexts, run=run)
    if config.start:
        load_fitting_weights(model, config.start)
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
) -> RepairTrainer:
    """Return the trainer of `model` on the images `indices` (n,); a selection file sets how often damages are drawn."""
    if not config.start:
        fit_statistics(model.backbone, pool, indices)
    objective = build_repair_objective(config, run, pool, pretexts, indices)
    weights = apply_selection(objective, selection, pool, config, indices) if selection else None
    feed = build_repair_feed(config, pool, indices, config.optim, accelerator, weights)
    return make_trainer(config, accelerator, model, objective, feed)


def resume_repair(
    trainer: RepairTrainer, run: Run, config: RunConfig | None = None, memory: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Resume as `fit.resume` does, with the checkpoint's chance losses; return the memory for the next checkpoints.

    `memory` has the defaults of what else a checkpoint keeps.
    """
    memory = {"chance": trainer.objective.chance_losses, **(memory or {})}
    resume(trainer, run, memory, config)
    trainer.objective.chance_losses = memory["chance"]
    return memory


def build_repair_feed(
    config: RunConfig,
    pool: Pool,
    indices: torch.Tensor,
    optim: Optim,
    accelerator: Accelerator,
    weights: torch.Tensor | None = None,
) -> RepairFeed:
    """Return this process's batches of the images `indices` (n,), drawn with probabilities `weights` (n,) if given."""
    batches = Batches(
        indices,
        images_per_process(optim, accelerator.num_processes),
        config.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        weights=weights,
    )
    return RepairFeed(pool, batches, config.seed, accelerator.device, config.data.num_workers)


def apply_selection(
    objective: PretextObjective, selection: str, pool: Pool, config: RunConfig, indices: torch.Tensor
) -> torch.Tensor:
    """Make the objective draw damages by the selection file; return how often to draw each of `indices`, (n,).

    Raises `UserError` if the selection has no weight for any of them.
    """
    pretexts = objective.mixture.pretexts
    preference = prefer(read_selection(Path(selection).expanduser()), pool, pretexts, config.section("pretexts"))
    weights = preference.image_weights(mixture_shares(pretexts, pool.shape))[indices]
    if not bool(weights.any()):
        raise UserError(f"the selection {selection!r} has no weight above 0 for any of {len(indices)} training images.")
    objective.mixture = Mixture(pretexts, preference)
    return weights


def images_per_process(optim: Optim, num_processes: int) -> int:
    """Return each process's images per step; raise `UserError` if the batch cannot be divided evenly."""
    if optim.batch_size % num_processes:
        raise UserError(
            f"optim.batch_size must be a multiple of the {num_processes} processes; found {optim.batch_size}."
        )
    return optim.batch_size // num_processes
