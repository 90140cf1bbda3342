"""The smallest difference that each comparison of a study can detect, estimated before its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.power import ALPHA, minimum_detectable

# standard deviation over images of their own effect on a difference, the same in all seeds: most disagreement of two
# arms on an image is of the seed. About the root mean square over the comparisons of our first studies
IMAGE_STD = 0.065
# standard deviation of a difference on one image at one seed: two arms disagree on a quarter of the images. It makes
# scores of few test images vary between seeds. Studies of digits and photographs were close to it
REST_STD = 0.5


def detectable_differences(
    pool: Pool,
    pairs: Sequence[tuple[str, str]],
    fractions: Sequence[float],
    num_seeds: int,
    expected_std: float,
    is_independent: Callable[[str, str, str], bool] = lambda task, arm, baseline: True,
) -> dict[str, Any]:
    """Return `expected_std`, and a row per comparison with the difference that it detects with 80 % power.

    The level is that of Holm's first step, with all independent comparisons in one family and the others, by
    `is_independent` of (task, arm, baseline), in another. Over seeds, differences are assumed to
    have a standard deviation of `expected_std` on many test images; few add `REST_STD` / sqrt(n). Images have an effect
    of their own of `IMAGE_STD`. The difference is None for regression and other tasks without classes, for one seed,
    and for one test image.
    """
    kinds = [(task, is_independent(task, *pair)) for pair in pairs for _ in fractions for task in pool.targets]
    counts = Counter(independent for _, independent in kinds)
    smallest = {kind: _smallest(pool, kind[0], num_seeds, counts[kind[1]], expected_std) for kind in set(kinds)}
    rows = [
        {
            "task": task,
            "fraction": fraction,
            "arm": arm,
            "baseline": baseline,
            "minimum_detectable": smallest[task, is_independent(task, arm, baseline)],
        }
        for arm, baseline in pairs
        for fraction in fractions
        for task in pool.targets
    ]
    return {"expected_std": expected_std, "rows": rows}


def _smallest(pool: Pool, task: str, num_seeds: int, count: int, std: float) -> float | None:
    clusters = len(np.unique(pool.cluster[pool.indices("test", task=task).numpy()]))
    if not label_kind(pool.targets[task].kind).classifies_images or num_seeds < 2 or clusters < 2:
        return None
    image_error = IMAGE_STD / float(np.sqrt(clusters))
    over_seeds = float(np.hypot(std, REST_STD / np.sqrt(clusters)))
    return minimum_detectable(
        over_seeds, num_seeds, alpha=ALPHA / count, image_error=image_error, num_clusters=clusters
    )
