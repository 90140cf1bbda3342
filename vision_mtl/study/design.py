"""What a design can show, said before its runs: the smallest difference that each comparison would detect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.power import ALPHA, minimum_detectable

DISAGREEMENT = 0.2  # share of test images on which two arms are expected to differ in being right


def before_the_runs(
    pool: Pool, pairs: Sequence[tuple[str, str]], fractions: Sequence[float], num_seeds: int, expected_std: float
) -> dict[str, Any]:
    """`expected_std`, and a row a comparison with the difference that it would show with 80 % power.

    At the level of Holm's first step, all comparisons being one family. Differences are expected to vary by
    `expected_std` over seeds, and test images to differ in a fifth of cases. None for tasks whose values are no shares,
    for one seed, and for one test image.
    """
    count = len(pairs) * len(fractions) * len(pool.targets)
    smallest = {task: _smallest(pool, task, num_seeds, count, expected_std) for task in pool.targets} if count else {}
    rows = [
        {"task": task, "fraction": fraction, "arm": arm, "baseline": baseline, "minimum_detectable": found}
        for arm, baseline in pairs
        for fraction in fractions
        for task, found in smallest.items()
    ]
    return {"expected_std": expected_std, "rows": rows}


def _smallest(pool: Pool, task: str, num_seeds: int, count: int, std: float) -> float | None:
    clusters = len(np.unique(pool.cluster[pool.indices("test", task=task).numpy()]))
    if not label_kind(pool.targets[task].kind).classifies_images or num_seeds < 2 or clusters < 2:
        return None
    image_error = float(np.sqrt(DISAGREEMENT / clusters))
    return minimum_detectable(std, num_seeds, alpha=ALPHA / count, image_error=image_error, num_clusters=clusters)
