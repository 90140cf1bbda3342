"""Skill of each pretext on held-out images, in total and by source, with intervals over clusters of images."""

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

MAX_IMAGES = 1000  # scored images of each source: the number of clusters limits the interval, more images do not help
NUM_DRAWS = 2  # damages of each image for masking pretexts: skill varies with the cell as much as with the image


def score_pretexts(
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    split: str = "test",
) -> dict[str, dict[str, Any]]:
    """Return the skills on the images of `split`, in the form of `result.json`.

    `skill` is {pretext: score}, `skill_by_source` is {source: {pretext: score}}; `skill_untrained` and
    `skill_untrained_by_source` are those of an all-zero prediction, before learning. A pretext is absent where no image
    suits it or the error of the classic repair is 0.
    """
    held_out = [spread_evenly(pool.indices(split, source=source), MAX_IMAGES) for source in pool.sources]
    indices = torch.cat(held_out).unique()  # an image may be in two sources
    found: dict[str, dict[str, Any]] = {}
    for name in mixture.pretexts:
        draws = NUM_DRAWS if mixture.hides_pixels(name) else 1
        errors = measure_errors(model, pool, indices, mixture, name, num_draws=draws, autocast=autocast)
        if not errors.reference.any():  # no image suits it, or the classic repair is perfect
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
