"""Check before training that no micro-batch is a single image where the model or a pretext needs two.

Batches continue across epochs, so all of a run have one size, and the smallest part follows from the options. Heads and
decoders have no BatchNorm, so a task with one labelled image in a batch is no problem.
"""

from __future__ import annotations

from typing import TypeGuard

from vision_mtl.core.errors import UserError
from vision_mtl.models.batch_norm import needs_two_images
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.objective import Feed, Objective
from vision_mtl.training.options import Optim
from vision_mtl.training.repair import PretextObjective


def check_smallest_batch(
    model: SharedModel, objective: Objective, feed: Feed, optim: Optim, num_processes: int = 1
) -> None:
    """Raise `UserError` that names the options if a pass of one image cannot train the model or a pretext."""
    smallest = feed.smallest_part(optim.accumulate)
    if smallest <= 1 and needs_two_images(model, model.frozen):
        why = f"backbone {model.backbone.name!r} has BatchNorm, which normalises over 2 images or more"
        other = " A backbone without BatchNorm, such as vit_tiny_patch16_224 or convnext_atto, takes single images."
        raise UserError(_found(optim, num_processes, why) + _advice(optim, num_processes) + other)
    if isinstance(feed, JointFeed) and isinstance(objective, JointObjective):
        if smallest == 0:
            raise UserError(
                f"optim.accumulate {optim.accumulate}{_processes(num_processes)} is more than the images of the "
                "smaller of a step's two batches. Give a larger --optim.batch_size or a smaller --optim.accumulate."
            )
        members = [(own, feed.members[name]) for name, own in objective.members.items()]
    else:
        members = [(objective, feed)]
    for own, images in members:
        compared = [n for n, p in own.mixture.pretexts.items() if p.output == "embedding"] if _is_repair(own) else []
        if compared and images.smallest_part(optim.accumulate) <= 1:
            why = f"pretext {compared[0]!r} compares images, so it learns from 2 or more"
            raise UserError(_found(optim, num_processes, why) + _advice(optim, num_processes))


def _is_repair(objective: Objective) -> TypeGuard[PretextObjective]:
    return isinstance(objective, PretextObjective)


def _found(optim: Optim, num_processes: int, why: str) -> str:
    parts = f" and optim.accumulate {optim.accumulate}" if optim.accumulate > 1 else ""
    return f"optim.batch_size {optim.batch_size}{parts}{_processes(num_processes)}: a pass has 1 image, but {why}."


def _advice(optim: Optim, num_processes: int) -> str:
    fewer = optim.batch_size // (2 * num_processes)
    smaller = f", or --optim.accumulate {fewer} or less" if fewer > 1 else ", or leave out --optim.accumulate"
    smaller = smaller if optim.accumulate > 1 and fewer else ""
    return f" Give --optim.batch_size {2 * num_processes * optim.accumulate} or more{smaller}."


def _processes(count: int) -> str:
    return f" in {count} processes" if count > 1 else ""
