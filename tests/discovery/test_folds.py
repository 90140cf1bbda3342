"""Folds: whole clusters, equal halves of every source, drawn by names of images."""

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.discovery.folds import fold_images, sample_images, split_folds

IMAGES = np.random.default_rng(0).random((60, 8, 8, 3))
MEMBER = np.stack([np.arange(60) < 40, np.arange(60) >= 40], 1)


def test_clusters_stay_whole_and_sources_are_halved(pool_of) -> None:
    pool = pool_of(IMAGES, cluster=np.arange(60) // 4, member=MEMBER)
    first, second = split_folds(pool, torch.arange(60), seed=0)
    assert torch.equal(torch.cat((first, second)).sort().values, torch.arange(60))
    assert not set(pool.cluster[first]) & set(pool.cluster[second])
    for column in range(2):
        counts = [int(pool.member[fold, column].sum()) for fold in (first, second)]
        assert abs(counts[0] - counts[1]) <= 4


def test_seeds_differ_and_repeat(pool_of) -> None:
    pool = pool_of(IMAGES)
    folds = [split_folds(pool, torch.arange(60), seed)[0].tolist() for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]


def test_only_the_given_images_are_used(pool_of) -> None:
    first, second = split_folds(pool_of(IMAGES), torch.arange(10, 30), seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10, 30))


def test_one_cluster_cannot_be_split(pool_of) -> None:
    with pytest.raises(UserError, match=r"two clusters or more.*found 60 images of one"):
        split_folds(pool_of(IMAGES, cluster=np.zeros(60, int)), torch.arange(60), seed=0)


def test_a_sample_has_count_images_of_each_source(pool_of) -> None:
    chosen = sample_images(pool_of(IMAGES, member=MEMBER), torch.arange(60), 5)
    assert len(chosen) == 10 and int((chosen < 40).sum()) == 5 and chosen.tolist() == sorted(chosen.tolist())


def test_mean_images_are_over_all_images_of_a_source_in_the_fold(pool_of) -> None:
    pool = pool_of(IMAGES, member=MEMBER, cluster=np.arange(60) // 2)
    fold = fold_images(pool, torch.arange(50), torch.device("cpu"))
    pixels = pool.gather(torch.arange(50)).numpy()
    np.testing.assert_allclose(fold.mean[0], pixels[:40].mean(0), atol=1e-6)
    np.testing.assert_allclose(fold.mean[1], pixels[40:].mean(0), atol=1e-6)
    chooses = pool.cluster[:50][fold.chooses.numpy()]
    assert not set(chooses) & set(pool.cluster[:50][~fold.chooses.numpy()]) and 0.15 < len(chooses) / 50 < 0.35
    alone = fold_images(pool, torch.arange(30), torch.device("cpu"))  # the second source has no image in it
    np.testing.assert_allclose(alone.mean[1], pixels[:30].mean(0), atol=1e-6)
