"""Skill of each pretext on held-out images, in total and by source, with intervals over clusters of images.

The measurement and the verdicts are those of `discover`: every damage of every scored image, against rules fitted to
training images. Beside them stands the skill against the classic repair alone.
"""
# n scored images, D damages

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.memory import freed_memory_kept
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import fold_images, sample_images
from vision_mtl.discovery.measure import Autocast, DamageErrors, ScoredNetwork, measure_damages, num_reports
from vision_mtl.discovery.options import Score
from vision_mtl.discovery.rule_errors import usable_indices
from vision_mtl.discovery.tables import judge_pretexts, learned_metrics, source_groups
from vision_mtl.evaluation.scores import ratio_skill
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture

MAX_TRAINING = 3000  # training images of each source for the rules' means, of which `fold_images` fits slopes to a part
MIN_IMAGES = 32  # of each source, for pretexts of many damages or without a repair
REPAIRS_PER_IMAGE = 2  # of `score.images`: images times damages of each source and pretext, between the two limits
ORDER_SEED = 20_261_130  # of the order in which a cluster's images are scored
ShowShare = Callable[[float, str], None]  # receives the share done, in [0, 1], and what comes next


def score_pretexts(
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    autocast: Autocast = nullcontext,
    split: str = "test",
    start: SharedModel | None = None,
    *,
    num_images: int = Score.images,
    cache: Path | None = None,
    show: ShowShare = lambda share, text: None,
) -> dict[str, dict[str, Any]]:
    """Return the skills on the images of `split`, in the form of `result.json`; `start` is the model before training.

    `skill_learned` is {pretext: score}, `skill_learned_by_source` is {source: {pretext: score}}: against the best rule
    without learning. `skill`, `skill_untrained` and those by source are against the classic repair alone; untrained is
    the all-zero prediction. A pretext is absent where no image suits it or the error of the classic repair is 0. At
    most `num_images` of each source are scored; 0: none. Errors of rules are kept in the folder `cache`.
    """
    chosen = {}
    for name, pretext in mixture.pretexts.items() if num_images else ():
        usable = usable_indices(pool, pretext, scored_images(pool, split, pretext, num_images))
        if len(usable):
            chosen[name] = usable
    if not chosen:
        return learned_metrics({})
    network = ScoredNetwork(model, pool, mixture, autocast, start)
    training = fold_images(pool, sample_images(pool, pool.indices("train"), MAX_TRAINING), network.device)
    total, done = sum(num_reports(mixture.pretexts[name], pool.shape) for name in chosen), itertools.count()
    with freed_memory_kept():
        found = [
            measure_damages(network, name, usable, training, 0, lambda what: show(next(done) / total, what), cache)
            for name, usable in chosen.items()
        ]
    errors = [own for own in found if own.classic.any()]
    return {**learned_metrics(judge_pretexts(pool, errors)), **classic_metrics(pool, errors)}


def scored_images(pool: Pool, split: str, pretext: Pretext, num_images: int = Score.images) -> Tensor:
    """Return indices (n,) of the images of `split` to score the pretext on: at most `num_images` of each source.

    They are fewer if it has many damages, because each image is scored under all of them, and if it repairs nothing:
    its loss is one figure.
    """
    count = num_images
    if not pretext.repairs:
        count = num_images // 3
    elif pretext.lists_damages:
        count = REPAIRS_PER_IMAGE * num_images // len(pretext.damage_shares(pool.shape))
    count = min(max(count, MIN_IMAGES), num_images)
    chosen = [sample_clusters(pool, pool.indices(split, source=source), count) for source in pool.sources]
    return torch.cat(chosen).unique()  # an image may be in two sources


def sample_clusters(pool: Pool, indices: Tensor, count: int) -> Tensor:
    """Return at most `count` of the indices (n,): an image of each cluster, then a second one of each, and so on."""
    order = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(ORDER_SEED))]
    group = np.unique(pool.cluster[order.numpy()], return_inverse=True)[1]
    by_group = np.argsort(group, kind="stable")
    first = np.searchsorted(group[by_group], group[by_group])
    rank = np.empty(len(order), np.int64)
    rank[by_group] = np.arange(len(order)) - first  # how many images of its cluster come before
    return order[torch.from_numpy(np.argsort(rank, kind="stable")[:count])].sort().values


def classic_metrics(pool: Pool, errors: Sequence[DamageErrors]) -> dict[str, Any]:
    """Return the skills against the classic repair, of the network and of the all-zero prediction."""
    found: dict[str, dict[str, Any]] = {}
    for own in errors:
        sums = {name: getattr(own, name) @ own.shares for name in ("model", "untrained", "classic")}  # (n,) each
        for (kind, name), members in source_groups(pool).items():
            rows = members[own.index]
            if not sums["classic"][rows].any():
                continue
            for key, which in (("skill", "model"), ("skill_untrained", "untrained")):
                clusters = pool.cluster[own.index[rows]]
                score = ratio_skill(sums[which][rows], sums["classic"][rows], clusters).to_json()
                if kind == "all":
                    found.setdefault(key, {})[own.pretext] = score
                else:
                    found.setdefault(f"{key}_by_source", {}).setdefault(name, {})[own.pretext] = score
    return found
