"""The skill of each pretext on held-out images, in all and by source, with intervals over clusters of images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
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
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """({pretext: score}, {source: {pretext: score}}) on the images of `split`; a pretext no image suits is absent."""
    held_out = [spread_evenly(pool.indices(split, source=source), MAX_IMAGES) for source in pool.sources]
    indices = torch.cat(held_out).unique()  # an image of two sources is scored once
    overall: dict[str, Any] = {}
    by_source: dict[str, dict[str, Any]] = {source: {} for source in pool.sources}
    for name in mixture.pretexts:
        draws = NUM_DRAWS if mixture.hides_pixels(name) else 1
        errors = measure_errors(model, pool, indices, mixture, name, num_draws=draws, autocast=autocast)
        if len(errors.index) == 0:
            continue
        overall[name] = _skill(errors, pool)
        for column, source in enumerate(pool.sources):
            rows = pool.member[errors.index, column]
            if rows.any():
                by_source[source][name] = _skill(_rows(errors, rows), pool)
    return overall, by_source


def _skill(errors: Errors, pool: Pool) -> dict[str, Any]:
    return ratio_skill(errors.model, errors.reference, pool.cluster[errors.index]).to_json()


def _rows(errors: Errors, rows: np.ndarray) -> Errors:
    return Errors(errors.index[rows], errors.model[rows], errors.reference[rows])
