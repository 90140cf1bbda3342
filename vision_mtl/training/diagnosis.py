"""What watches a training run: losses that blow up, and which images broke a step.

Everything here reads numbers that the loop has on the CPU already, or runs once when a step is broken; nothing makes
the device wait in a step that is sound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vision_mtl.core.memory import is_out_of_memory
from vision_mtl.training.objective import Feed, Objective, Together, TogetherFeed, step_loss

if TYPE_CHECKING:
    from vision_mtl.training.loop import Trainer

BLOW_UP = 3.0  # times the early loss: repair starts at chance and classes near ln K, so training never belongs there
EARLY = 3  # lines of metrics.jsonl that the early loss is the largest of: one batch alone scatters too much
SHOWN = 5  # images named in a message


@dataclass
class LossWatch:
    """Compares each line's mean losses with the early ones. A checkpoint holds `vars` of it."""

    early: dict[str, float] = field(default_factory=dict)
    lines: int = 0
    said: list[str] = field(default_factory=list)

    def look(self, step: int, means: Mapping[str, float]) -> list[str]:
        """What to warn of after a line: each loss that has blown up, once a run."""
        self.lines += 1
        found = []
        for name, value in means.items():
            if self.lines <= EARLY and math.isfinite(value):
                self.early[name] = max(value, self.early.get(name, 0.0))
            elif 0 < self.early.get(name, 0.0) * BLOW_UP < value and name not in self.said:
                self.said.append(name)
                found.append(
                    f"the loss of {name} has blown up: {value:.3g} at step {step}, {self.early[name]:.3g} at the "
                    "start. Lower --optim.learning_rate, or raise --optim.warmup_ratio."
                )
        return found


def what_fits(trainer: Trainer, step: int) -> str:
    """After a step ran out of memory: in how many parts it would not have, found by trying; with what to do.

    One of several processes cannot try alone: the others are waiting for the step that broke.
    """
    size, parts = trainer.optim.batch_size, trainer.optim.accumulate * 2
    if trainer.accelerator.num_processes > 1:
        return f"Give --optim.accumulate {parts}, or a smaller --optim.batch_size, in a new --run_dir."
    while parts <= size:
        if _fits(trainer, step, parts):
            return (
                f"Measured just now: {-(-size // parts)} images at a time fit. Give --optim.accumulate {parts}, which "
                f"computes the same step in parts, or --optim.batch_size {size // parts}, in a new --run_dir "
                "(--init_from this one keeps what it has learned)."
            )
        parts *= 2
    return (
        "Measured just now: not even one image at a time fits. Lower --image_size, take a smaller --backbone.name, or "
        "free memory."
    )


def _fits(trainer: Trainer, step: int, parts: int) -> bool:
    """Whether so many parts of the step go forward and backward, one by one, beside the optimiser's memory."""
    trainer.optimiser.zero_grad(set_to_none=True)
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        wanting = [p for p in trainer.model.parameters() if p.requires_grad and p not in trainer.optimiser.state]
        reserved = [torch.empty_like(p) for p in wanting for _ in range(2)]  # what AdamW takes at its first step
        batches = trainer.feed.at(step, parts)  # a step holds them all until its end
        autocast = trainer.accelerator.autocast
        for batch, _ in batches:  # all of them: one may have more that is costly than another
            loss = step_loss(trainer.model, trainer.objective, batch, trainer.layout, autocast=autocast)
            loss.total.backward()
        del reserved, batches
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        trainer.optimiser.zero_grad(set_to_none=True)
    return True


def broken_images(trainer: Trainer, step: int) -> str:
    """Which of a step's images have a loss of their own that is not finite, by name: each goes through alone."""
    pairs: list[tuple[Objective, Feed]] = [(trainer.objective, trainer.feed)]
    if isinstance(trainer.objective, Together) and isinstance(trainer.feed, TogetherFeed):
        pairs = [(own, trainer.feed.members[name]) for name, own in trainer.objective.members.items()]
    names, count = [], 0
    with trainer.whole_weights() as model:
        was_training = model.training
        model.eval()
        for objective, feed in pairs:
            indices = feed.evidence(step)["indices"].tolist()
            broken = _broken(trainer, model, objective, feed, step)
            count += len(indices)
            names += [feed.pool.identities[i] for i, bad in zip(indices, broken, strict=True) if bad]
        model.train(was_training)
    if not names:
        return "no image alone breaks it: it is the step as a whole"
    if len(names) == count:
        return f"all {count} images of the step do: the weights are broken, not the images"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"images: {', '.join(names[:SHOWN])}{more}"


def _broken(trainer: Trainer, model: nn.Module, objective: Objective, feed: Feed, step: int) -> list[bool]:
    """For each image of the step, whether its loss alone is no number; one without any loss is not."""
    found = []
    share = trainer.optim.progress(step, trainer.progress.seconds)
    for batch, _ in feed.at(step, len(feed.evidence(step)["indices"])):
        with torch.no_grad():
            loss = step_loss(model, objective, batch, trainer.layout, share, trainer.accelerator.autocast)
        losses: dict[str, Any] = loss.losses
        found.append(any(not math.isfinite(float(value)) for value in losses.values()))
    return found
