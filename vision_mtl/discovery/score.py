"""The skill of each pretext on held-out images, in all and by source, with intervals over clusters of images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vision_mtl.data.pool import Pool
from vision_mtl.discovery.skill import Errors, measure_errors
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.evaluation.scores import ratio_skill
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture

MAX_IMAGES = 1000  # test images scored from each source: the interval is set by clusters, not by more of these
NUM_DRAWS = 2  # damages of each image where pixels are hidden: where the cell falls matters as much as the image


def score_pretexts(
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    split: str = "test",
) -> dict[str, dict[str, Any]]:
    """Skills on the images of `split`, in the form of `result.json`; a pretext is absent where no image suits it
    or where the classic repair makes no error at all.

    `skill` is {pretext: score}, `skill_by_source` {source: {pretext: score}}; `skill_untrained` and
    `skill_untrained_by_source` are the same for an all-zero prediction: what was there before learning.
    """
    held_out = [spread_evenly(pool.indices(split, source=source), MAX_IMAGES) for source in pool.sources]
    indices = torch.cat(held_out).unique()  # an image of two sources is scored once
    found: dict[str, dict[str, Any]] = {}
    for name in mixture.pretexts:
        draws = NUM_DRAWS if mixture.hides_pixels(name) else 1
        errors = measure_errors(model, pool, indices, mixture, name, num_draws=draws, autocast=autocast)
        if not errors.reference.any():  # no image suits it, or the classic repair is perfect: nothing to measure
            continue
        for key, which in (("skill", "model"), ("skill_untrained", "untrained")):
            found.setdefault(key, {})[name] = _skill(errors, pool, which)
            for column, source in enumerate(pool.sources):
                own = errors.select(pool.member[errors.index, column])
                if own.reference.any():
                    found.setdefault(f"{key}_by_source", {}).setdefault(source, {})[name] = _skill(own, pool, which)
    return found


def _skill(errors: Errors, pool: Pool, which: str) -> dict[str, Any]:
    return ratio_skill(getattr(errors, which), errors.reference, pool.cluster[errors.index]).to_json()
