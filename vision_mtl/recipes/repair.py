"""Training on damaged images: which images, the mixture in units of chance, batches, the trainer."""

from __future__ import annotations

from pathlib import Path

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
from vision_mtl.recipes.fit import make_trainer
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.repair import PretextObjective, RepairFeed, measure_chance_losses

CHANCE_IMAGES = 512  # training images that chance losses are measured on: their error is then a few per cent


def training_images(config: RunConfig, pool: Pool) -> torch.Tensor:
    """(n,) indices that pretraining may see: the training images, and the test images only if the config says so.

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
    """The mixture in units of chance, measured on `indices` (n,); a pretext that no image suits is left out, and
    said."""
    sample = spread_evenly(indices, CHANCE_IMAGES)
    chance_losses = measure_chance_losses(Mixture(pretexts), pool.gather(sample), Keys(config.seed, 0, sample))
    for name in pretexts.keys() - chance_losses.keys():
        run.warn(f"pretext {name} is left out: none of {len(sample)} training images looked at suits it.")
    kept = {name: pretext for name, pretext in pretexts.items() if name in chance_losses}
    return PretextObjective(Mixture(kept), chance_losses)


def build_network(config: RunConfig, pretexts: dict[str, Pretext]) -> SharedModel:
    """A network for the pretexts; fresh, or with the weights of `--init_from`. Built before the images are decoded, so
    that a wrong backbone is found first."""
    torch.manual_seed(config.seed)
    model = build.build_model(config, pretexts)
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
) -> Trainer:
    """What trains `model` on the images `indices` (n,), their damage drawn by the selection file where one is given."""
    objective = build_repair_objective(config, run, pool, pretexts, indices)
    weights = prefer_damages(objective, selection, pool, config, indices) if selection else None
    feed = repair_feed(config, pool, indices, config.optim, accelerator, weights)
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
    return RepairFeed(pool, batches, config.seed, accelerator.device, config.data.num_workers)


def prefer_damages(
    objective: PretextObjective, selection: str, pool: Pool, config: RunConfig, indices: torch.Tensor
) -> torch.Tensor:
    """Make the objective's mixture draw by the selection file; (n,) how often each of `indices` is to be drawn.

    Raises `UserError` if it weighs none of them.
    """
    chosen = read_selection(Path(selection).expanduser())
    pretexts = objective.mixture.pretexts
    preference = prefer(chosen, pool, pretexts, config.section("pretexts"))
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
