"""The images of a run that a page may show: examples to choose from, and training images to find neighbours among."""
# n images, D feature width, C channels, H W pixels

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.evaluation.features import extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.knn import nearest_neighbours
from vision_mtl.inference.prediction_files import prediction_text
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.progress import ProgressLine

BATCH = 128  # images embedded between two steps of the progress bar
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Gallery:
    """`examples` (n,) and `indexed` (m,) are images of the pool, `features` (m, D) those of the indexed ones.

    `backbone` made the features, on clean statistics; None where there is nothing to find.
    """

    pool: Pool
    examples: Tensor
    indexed: Tensor
    features: Tensor
    backbone: Backbone | None
    autocast: Autocast = nullcontext

    def shows(self, number: int) -> bool:
        """Whether a page may ask for the pool's image `number`."""
        return bool((self.examples == number).any() or (self.indexed == number).any())

    def labels(self, number: int) -> dict[str, str]:
        """What an image is labelled as, by task; dense tasks and those without a label are left out."""
        found = {task: label_text(target, number) for task, target in self.pool.targets.items()}
        return {task: text for task, text in found.items() if text is not None}

    def neighbours(self, images: Tensor, count: int, but: int | None = None) -> list[list[dict[str, Any]]]:
        """The `count` nearest indexed images of each of images (n, C, H, W), nearest first; never the image `but`."""
        if self.backbone is None:
            return [[] for _ in images]
        with torch.no_grad(), self.autocast():
            asked = self.backbone.embed(images).float().cpu()
        similarity, rows = nearest_neighbours(self.features, asked, k=min(count + 1, len(self.features)))
        found = []
        for values, own in zip(similarity.tolist(), self.indexed[rows].tolist(), strict=True):
            pairs = [(number, value) for number, value in zip(own, values, strict=True) if number != but][:count]
            found.append([{"number": n, "similarity": round(v, 4), "labels": self.labels(n)} for n, v in pairs])
        return found


def build_gallery(
    pool: Pool, backbone: Backbone, autocast: Autocast, *, split: str, num_examples: int, max_indexed: int
) -> Gallery:
    """Examples from `split`, an equal share of each source; at most `max_indexed` training images embedded."""
    share = math.ceil(num_examples / len(pool.sources))
    own = [spread_evenly(pool.indices(split, source=source), share).tolist() for source in pool.sources]
    examples = list(dict.fromkeys(index for indices in own for index in indices))[:num_examples]
    train = pool.indices("train")
    indexed = spread_evenly(train, max_indexed)
    if len(indexed) < 2:
        return Gallery(pool, torch.tensor(examples).long(), indexed[:0], torch.zeros(0, 1), None)
    clean = with_clean_statistics(backbone, pool, train, autocast=autocast)
    line, parts = ProgressLine(), []
    for batch in indexed.split(BATCH):
        parts.append(extract_features(clean, pool, batch, autocast=autocast))
        line.update(len(parts) * BATCH / len(indexed), "looking at the training images")
    line.close()
    return Gallery(pool, torch.tensor(examples).long(), indexed, torch.cat(parts), clean, autocast)


def label_text(target: Target, number: int) -> str | None:
    """The label of the pool's image `number` in words; None if it has none, or a mask."""
    kind = label_kind(target.kind)
    if kind.is_dense or not target.labelled[number]:
        return None
    return prediction_text(kind.describe(target.values[number], target.class_names), ", ")
