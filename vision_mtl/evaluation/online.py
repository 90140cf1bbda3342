"""The online probe: kNN accuracy on the labelled tasks during pretraining, to show whether it helps.

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", 2018,
https://arxiv.org/abs/1805.01978, sec. 3.4. Neighbours are training images, scores are on validation images; there are
no gradients, and test images are not read.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import Autocast, extract_features, spread_evenly
from vision_mtl.evaluation.knn import knn_predict
from vision_mtl.evaluation.statistics import expected_agreement
from vision_mtl.models.backbone import Backbone

TRAIN_IMAGES, VAL_IMAGES = 250, 150  # per task: a point's standard error is .04 or less, enough to see a curve rise
NEIGHBOURS = 10  # fixed, so that the points of a curve are comparable


def online_probe(clean: Backbone, pool: Pool, autocast: Autocast = nullcontext) -> dict[str, dict[str, float]]:
    """Return task -> {"knn", "chance", "majority"}, accuracies on validation images.

    `majority` is that of the training images' largest class, `chance` that of the kNN predictions, shuffled.
    `clean` is a backbone with statistics of clean images, as `with_clean_statistics` returns it.
    """
    found = {}
    for task, labels in pool.labels.items():
        train = spread_evenly(pool.indices("train", task=task), TRAIN_IMAGES)
        val = spread_evenly(pool.indices("val", task=task), VAL_IMAGES)
        if len(train) == 0 or len(val) == 0:
            continue
        train_y, val_y = (torch.as_tensor(labels)[i] for i in (train, val))
        features = (extract_features(clean, pool, i, autocast=autocast) for i in (train, val))
        train_x, val_x = features
        said = knn_predict(train_x, train_y, val_x, k=min(NEIGHBOURS, len(train)))
        found[task] = {
            "knn": float((said == val_y).float().mean()),
            "chance": expected_agreement(said.numpy(), val_y.numpy()),
            "majority": float((val_y == train_y.bincount().argmax()).float().mean()),
        }
    return found
