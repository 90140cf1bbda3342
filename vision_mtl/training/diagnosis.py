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
from vision_mtl.models.batch_norm import needs_two_images
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.objective import Feed, Objective, step_loss
from vision_mtl.training.options import Optim

Autocast = Callable[[], AbstractContextManager[object]]

NUM_SHOWN = 5  # images named in a message


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
    """Return the names of the images of `step` whose loss is not finite, as a phrase; each is tried alone.

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
        return "no single image causes it"
    if len(names) == count:
        return f"all {count} images of the step have a non-finite loss, so the cause is the weights, not the images"
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return f"images: {', '.join(names[:NUM_SHOWN])}{more}"


def what_fits(
    model: SharedModel,
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
    """Return advice after `step` ran out of memory: the largest micro-batches that fit, found by trying.

    One of several processes (not `alone`) cannot try, because the others wait in the step that failed.
    """
    size, count = optim.batch_size, optim.accumulate * 2
    if not alone:
        return f"Give --optim.accumulate {count}, or a smaller --optim.batch_size, in a new --run_dir."

    def passes(num_micro_batches: int) -> None:
        batches = feed.at(step, num_micro_batches)  # all at once, as a step holds them
        for batch, share in batches:  # all of them: one may need more memory than another
            step_loss(model, objective, batch, share, layout, autocast=autocast).total.backward()

    least = 2 if needs_two_images(model, model.frozen) else 1
    while count <= size and feed.smallest_part(count) >= least:
        if _fits(partial(passes, count), model, optimiser):
            return (
                f"Measured just now: {-(-size // count)} images at a time fit. Give --optim.accumulate {count}, which "
                f"computes the same step in micro-batches, or --optim.batch_size {size // count}, in a new --run_dir "
                "(--init_from this one keeps the weights)."
            )
        count *= 2
    return (
        f"Measured just now: not even {'one image' if least == 1 else 'two images'} at a time fit"
        f"{'s' if least == 1 else ' (BatchNorm needs two)'}. Lower --image_size, take a smaller --backbone.name, or "
        "free memory."
    )


def _fits(passes: Callable[[], None], model: nn.Module, optimiser: torch.optim.Optimizer) -> bool:
    """Return whether forward and backward passes fit in memory in addition to the optimiser's state."""
    optimiser.zero_grad(set_to_none=True)
    if next(model.parameters()).is_cuda:
        torch.cuda.empty_cache()
    try:
        without_state = [p for p in model.parameters() if p.requires_grad and p not in optimiser.state]
        reserved = [torch.empty_like(p) for p in without_state for _ in range(2)]  # AdamW's two moments
        passes()
        del reserved
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        optimiser.zero_grad(set_to_none=True)
    return True
