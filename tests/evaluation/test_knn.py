"""kNN against scikit-learn, and its edge cases."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.evaluation.knn import ROWS, TEMPERATURE, knn_accuracy, knn_predict, knn_votes, nearest_neighbours


@pytest.mark.parametrize("k", [1, 5, 60])
def test_agrees_with_scikit_learn(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    train, val = torch.randn(60, 8, generator=generator) + 3, torch.randn(40, 8, generator=generator) + 3
    classes = torch.randint(3, (60,), generator=generator)
    mean = train.mean(0)
    unit = [torch.nn.functional.normalize(x - mean, dim=1).double().numpy() for x in (train, val)]
    # on unit vectors the squared distance is 2 - 2 cosine
    oracle = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / TEMPERATURE)).fit(
        unit[0], classes.numpy()
    )
    found = knn_predict(train, classes, val, k=k)
    assert np.array_equal(found.numpy(), oracle.predict(unit[1]))


def test_votes_are_weighted_means_for_any_number_of_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    train, queries = torch.randn(30, 8, generator=generator), torch.randn(ROWS + 9, 8, generator=generator)
    values = torch.randn(30, 2, generator=generator)
    found = knn_votes(train, values, queries, k=30)
    mean = train.mean(0)
    cosine = torch.nn.functional.cosine_similarity((queries - mean)[:, None], (train - mean)[None], dim=2)
    weight = torch.softmax(cosine / TEMPERATURE, dim=1)
    torch.testing.assert_close(found, weight @ values, atol=1e-5, rtol=1e-4)
    assert knn_votes(train, values, queries[:0], k=3).shape == (0, 2)


def test_neighbours_are_sorted_by_similarity() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # of mean 0
    similarity, rows = nearest_neighbours(train, torch.tensor([[3.0, 1.0]]), k=3)
    assert rows.tolist() == [[0, 1, 3]]
    torch.testing.assert_close(similarity, torch.tensor([[3.0, 1.0, -1.0]]) / 10**0.5)
    assert nearest_neighbours(train, train[:0], k=2)[1].shape == (0, 2)


def test_accuracy_and_k() -> None:
    train, classes = torch.eye(4), torch.arange(4)
    assert knn_accuracy(train, classes, train, classes, k=1) == 1
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"1 to the 4 training images; found {k}"):
            knn_predict(train, classes, train, k=k)


def test_spread_evenly_takes_both_ends_and_no_image_twice() -> None:
    assert torch.equal(spread_evenly(torch.arange(5), 9), torch.arange(5))
    chosen = spread_evenly(torch.arange(1000), 37)
    assert len(chosen.unique()) == 37 and chosen[0] == 0 and chosen[-1] == 999
