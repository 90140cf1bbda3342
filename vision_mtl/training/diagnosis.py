"""Explains a step that failed: which of its images have a non-finite loss, and how many images fit in memory.

Both run extra passes over the step's images, so they are called only after a failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import nn

from vision_mtl.core.memory import is_out_of_memory
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.objective import Feed, Objective, step_loss
from vision_mtl.training.options import Optim

Autocast = Callable[[], AbstractContextManager[object]]

SHOWN = 5  # images named in a message


def broken_images(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    step: int,
    *,
    progress: float,
    layout: torch.memory_format,
    autocast: Autocast,
) -> str:
    """Name the images of `step` whose own loss is not finite: each goes through the model alone.

    `model` has full weights; `progress` is the share of training done, in [0, 1].
    """
    pairs: list[tuple[Objective, Feed]] = [(objective, feed)]
    if isinstance(objective, JointObjective) and isinstance(feed, JointFeed):
        pairs = [(own, feed.members[name]) for name, own in objective.members.items()]
    names, count = [], 0
    was_training = model.training
    model.eval()
    for own, images in pairs:
        indices = images.evidence(step)["indices"].tolist()
        count += len(indices)
        for index, (batch, share) in zip(indices, images.at(step, len(indices)), strict=True):
            with torch.no_grad():
                loss = step_loss(model, own, batch, share, layout, progress, autocast)
            if any(not math.isfinite(float(value)) for value in loss.losses.values()):
                names.append(images.pool.identities[index])
    model.train(was_training)
    if not names:
        return "no image alone breaks it: it is the step as a whole"
    if len(names) == count:
        return f"all {count} images of the step do: the weights are broken, not the images"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"images: {', '.join(names[:SHOWN])}{more}"


def what_fits(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    step: int,
    *,
    optim: Optim,
    optimiser: torch.optim.Optimizer,
    layout: torch.memory_format,
    autocast: Autocast,
    alone: bool = True,
) -> str:
    """Advise after `step` ran out of memory: try it in ever smaller micro-batches and name those that fit.

    One of several processes (not `alone`) cannot try: the others wait for the step that failed.
    """
    size, count = optim.batch_size, optim.accumulate * 2
    if not alone:
        return f"Give --optim.accumulate {count}, or a smaller --optim.batch_size, in a new --run_dir."

    def passes(num_micro_batches: int) -> None:
        batches = feed.at(step, num_micro_batches)  # a step holds them all until its end
        for batch, share in batches:  # all of them: one may need more memory than another
            step_loss(model, objective, batch, share, layout, autocast=autocast).total.backward()

    while count <= size:
        if _fits(partial(passes, count), model, optimiser):
            return (
                f"Measured just now: {-(-size // count)} images at a time fit. Give --optim.accumulate {count}, which "
                f"computes the same step in parts, or --optim.batch_size {size // count}, in a new --run_dir "
                "(--init_from this one keeps what it has learned)."
            )
        count *= 2
    return (
        "Measured just now: not even one image at a time fits. Lower --image_size, take a smaller --backbone.name, or "
        "free memory."
    )


def _fits(passes: Callable[[], None], model: nn.Module, optimiser: torch.optim.Optimizer) -> bool:
    """Whether forward and backward passes have memory enough beside the optimiser's state."""
    optimiser.zero_grad(set_to_none=True)
    if next(model.parameters()).is_cuda:
        torch.cuda.empty_cache()
    try:
        wanting = [p for p in model.parameters() if p.requires_grad and p not in optimiser.state]
        reserved = [torch.empty_like(p) for p in wanting for _ in range(2)]  # what AdamW takes at its first step
        passes()
        del reserved
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        optimiser.zero_grad(set_to_none=True)
    return True
