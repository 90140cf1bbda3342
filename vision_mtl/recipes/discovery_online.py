"""Discovery during training: one network, whose damages are drawn in proportion to its learning progress on each.

The bandit (`discovery/bandit.py`) gets the losses of every arm on validation images, not on training images: a training
loss also falls by memorising, even on pure noise. Weights are constant between two updates, so the damage of an image
is a function of (seed, epoch, image) and the weights, which every checkpoint contains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from vision_mtl.config.options import options_of
from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.arms import BanditArm, arm_losses, build_arms, prefer_arms, select_arms
from vision_mtl.discovery.bandit import Bandit
from vision_mtl.discovery.folds import sample_images
from vision_mtl.discovery.measure import ScoredNetwork
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes import build
from vision_mtl.recipes.discovery_outputs import describe_selection
from vision_mtl.recipes.feature_scores import score_features
from vision_mtl.recipes.fit import fit, write_result
from vision_mtl.recipes.initial_weights import before_training
from vision_mtl.recipes.pretrain_outputs import pretrain_actions, write_figures
from vision_mtl.recipes.repair import RepairTrainer, build_network, build_trainer, resume_repair, training_images
from vision_mtl.recipes.repair_scores import score_repairs
from vision_mtl.recipes.run_warnings import remember_images
from vision_mtl.recipes.teacher import bind_teachers, teacher_runs
from vision_mtl.training.progress import phase
from vision_mtl.training.step_record import Progress
from vision_mtl.training.tracking import Tracker
from vision_mtl.viz.online import online_figure
from vision_mtl.viz.style import save_chart

RECORD = "online"  # kind of its lines in metrics.jsonl, and its key in a checkpoint


@dataclass(frozen=True)
class OnlineOptions:
    """The options of discovery during training; raises `UserError` for a value out of range."""

    floor: float
    num_updates: int
    num_images: int

    def __post_init__(self) -> None:
        rules = {
            "floor": (0 < self.floor <= 1, "lie in (0, 1]", self.floor),
            "updates": (self.num_updates >= 1, "be 1 or more", self.num_updates),
            "images": (self.num_images >= 2, "be 2 or more", self.num_images),
        }
        for name, (holds, rule, found) in rules.items():
            if not holds:
                raise UserError(f"discover.online_{name} must {rule}; found {found}.")


def discover_online(config: RunConfig, run: Run, online: OnlineOptions) -> None:
    """Train with damages drawn by learning progress, score on the test images as pretrain does, write the results."""
    accelerator = config.runtime.accelerator(config.device)
    check_run(config, accelerator.num_processes)
    pretexts = build.build_pretexts(config)
    model = build_network(config, pretexts, run)
    start = before_training(model)
    pool = build.open_pool(config, run)
    indices = training_images(config, pool)
    remember_images(run, pool, indices, config.init_from, *teacher_runs(pretexts))
    pretexts = bind_teachers(config, run, pool, pretexts, accelerator.device)
    trainer = build_trainer(config, run, pool, indices, model, pretexts, accelerator)
    memory = resume_repair(trainer, run, config, {RECORD: None})
    curriculum = Curriculum(run, trainer, pool, validation_images(pool, online.num_images), online, memory)
    with phase(run.speaker, "measuring every damage"):
        curriculum.begin()
    actions = [(online.num_updates, curriculum.update), *pretrain_actions(trainer, pool, config.track)]
    fit(
        run,
        trainer,
        config.track,
        build.describe_model(config, trainer.model, pool, run.about.get("teacher")),
        memory,
        actions,
    )

    probes = [record["tasks"] for record in run.records() if record.get("kind") == "probe"]
    mixture, autocast = trainer.objective.mixture, trainer.accelerator.autocast
    skills = score_repairs(config, run, trainer.scored_model, pool, mixture, autocast, start)
    features = score_features(config, run, trainer.scored_model, start, pool, autocast)
    metrics = {**skills, "features": features, "online": probes[-1] if probes else {}, **curriculum.metrics()}
    curriculum.write(describe_selection(config, pool, trainer.objective.mixture.pretexts))
    with phase(run.speaker, "drawing figures"):
        write_figures(run, trainer, pool, metrics, config.tasks)
    write_result(run, trainer, metrics, pool.summary())


def check_mode(stage: Stage, online: bool) -> None:
    """Raise `UserError` if an option of the other mode was changed: `discover.online` is one mode, folds the other."""
    kind: type = type(stage)
    for option in options_of(kind):
        found = getattr(stage, option.name)
        if option.name == "online" or found == option.default:
            continue
        named = f"discover.{option.name}"
        if online and not option.name.startswith("online_"):
            raise UserError(
                f"{named} has no use with discover.online, which trains one network by learning progress and gives no "
                f"verdict on an image; leave it out; found {found}."
            )
        if not online and option.name.startswith("online_"):
            raise UserError(f"{named} is for discover.online alone: add --discover.online; found {found}.")


def check_one_cell(config: RunConfig) -> None:
    """Raise `UserError` for a pretext that hides more than one cell: its damages have no names."""
    for name, pretext in config.pretexts.items():
        if not pretext.lists_damages and pretext.weight > 0:
            hidden = getattr(pretext, "hidden", None)  # a chain has a step that hides cells
            option = f"pretexts.{name}.hidden" if hidden else f"hidden of the step of pretexts.{name} that hides cells"
            raise UserError(
                f"discover hides one cell at a time: {option} must be one" + (f"; found {hidden}." if hidden else ".")
            )


def check_run(config: RunConfig, num_processes: int) -> None:
    """Raise `UserError` for an option with which learning progress cannot be measured."""
    check_one_cell(config)
    if config.data.include_test:
        raise UserError(
            "discover.online measures progress on validation images, which data.include_test lets into training; "
            "leave data.include_test out; found true."
        )
    if num_processes > 1:
        raise UserError(f"discover.online runs in one process: start it without a launcher; found {num_processes}.")


def validation_images(pool: Pool, count: int) -> Tensor:
    """Return indices (n,) of about `count` validation images, divided equally among sources.

    Raises `UserError` if there is none.
    """
    found = sample_images(pool, pool.indices("val"), math.ceil(count / len(pool.sources)))
    if len(found) == 0:
        raise UserError(
            "discover.online measures progress on validation images, and there is none: give more images, or a larger "
            "--data.val_ratio."
        )
    return found


@dataclass
class Curriculum:
    """Sets how often each damage is drawn: measures the arms, updates the bandit, changes the trainer's mixture.

    `images` are the indices (n,) that progress is measured on; `memory` is saved with the next checkpoint.
    """

    run: Run
    trainer: RepairTrainer
    pool: Pool
    images: Tensor
    online: OnlineOptions
    memory: dict[str, Any]
    arms: list[BanditArm] = field(init=False)
    bandit: Bandit = field(init=False)

    def __post_init__(self) -> None:
        self.arms = build_arms(self.trainer.objective.mixture.pretexts, self.pool.shape)

    def begin(self) -> None:
        """Start from the mixture's weights, or from those of a checkpoint."""
        if self.memory[RECORD] is None:
            base, clusters = np.array([arm.share for arm in self.arms]), self.pool.cluster[self.images.numpy()]
            untrained = self._measure(untrained=True)
            self._apply(Bandit.start(self.online.floor, base, clusters, untrained, self._measure()), Progress())
            return
        self.bandit = Bandit.from_state(self.memory[RECORD]["bandit"])
        self._draw_by_weights()
        if self._updates_due(self.trainer.progress) > self.memory[RECORD]["reached"]:
            self.update(self.trainer.progress)  # it was due when the run was interrupted

    def update(self, progress: Progress, tracker: Tracker | None = None) -> None:
        """Measure every arm, and set the weights for the following steps."""
        self._apply(self.bandit.update(self._measure()), progress)
        if tracker is not None:
            shares = zip(self.arms, self.bandit.shares.tolist(), strict=True)
            tracker.scalars(progress.step, {f"share/{arm.pretext}/{arm.name}": share for arm, share in shares})

    def history(self) -> list[dict[str, Any]]:
        """Return a row for each arm at each update.

        Its keys are `pretext`, `damage`, `images_seen`, `seconds`, `weight`, `share` and `skill`. Weight and share hold
        from this update on; skill is 1 - loss / untrained loss on the validation images.
        """
        records = {r["step"]: r for r in self.run.records() if r.get("kind") == RECORD}  # the last one of each step
        return [
            {"pretext": arm.pretext, "damage": arm.name}
            | {key: record[key] for key in ("images_seen", "seconds")}
            | {key: record[key][k] for key in ("weight", "share", "skill")}
            for record in records.values()
            for k, arm in enumerate(self.arms)
        ]

    def metrics(self) -> dict[str, Any]:
        """Return the last weights, their mean over the run, and their history, for `result.json`."""
        return {
            "online_weights": self._by_name(self.bandit.weights),
            "online_weights_mean": self._by_name(self.mean_weights()),
            "skill_over_time": self.history(),
        }

    def mean_weights(self) -> np.ndarray:
        """Return the mean of each arm's weight (A,) over the images of the run."""
        rows = self.history()
        seen = np.array([row["images_seen"] for row in rows[:: len(self.arms)]] + [self.trainer.progress.images_seen])
        weights = np.array([row["weight"] for row in rows]).reshape(-1, len(self.arms))
        return np.average(weights, axis=0, weights=np.diff(seen))

    def write(self, about: dict[str, Any]) -> None:
        """Write the mean weights as `selection.parquet`, and `figures/online.png`."""
        selection = select_arms(self.pool, self.arms, self.mean_weights(), self.bandit.skill, about)
        selection.write(self.run.folder / "selection.parquet")
        base = {(arm.pretext, arm.name): arm.share for arm in self.arms}
        save_chart(online_figure(self.history(), base), self.run.figures, "online")

    def _measure(self, untrained: bool = False) -> np.ndarray:
        trainer = self.trainer
        network = ScoredNetwork(trainer.model, self.pool, trainer.objective.mixture, trainer.accelerator.autocast)
        return arm_losses(network, self.arms, self.images, untrained)

    def _apply(self, bandit: Bandit, progress: Progress) -> None:
        """Draw by the bandit's weights from now on; log them, and put them into `memory`."""
        found = {"weight": bandit.weights, "share": bandit.shares, "skill": bandit.skill}
        self.run.log({"kind": RECORD, **vars(progress), **{key: value.tolist() for key, value in found.items()}})
        self.bandit = bandit
        self._draw_by_weights()
        self.memory[RECORD] = {"bandit": bandit.to_state(), "reached": self._updates_due(progress)}

    def _draw_by_weights(self) -> None:
        objective = self.trainer.objective
        preference = prefer_arms(self.arms, self.bandit.weights, len(self.pool))
        objective.mixture = Mixture(objective.mixture.pretexts, preference)

    def _updates_due(self, progress: Progress) -> int:
        """Return the number of updates due so far."""
        return int(self.trainer.optim.progress(progress.step, progress.seconds) * self.online.num_updates + 1e-9)

    def _by_name(self, values: np.ndarray) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for arm, value in zip(self.arms, values.tolist(), strict=True):
            found.setdefault(arm.pretext, {})[arm.name] = value
        return found
