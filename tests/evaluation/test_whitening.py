"""PCA whitening against scikit-learn, and where there are fewer components than asked for."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from vision_mtl.evaluation.whitening import Whitening


def test_it_is_scikit_learns_pca_up_to_sign() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 6)) @ np.random.default_rng(1).normal(size=(6, 6)) + 3
    found = Whitening.fit(torch.from_numpy(rows), 4)
    white = found(torch.from_numpy(rows)).numpy()
    wanted = PCA(4, whiten=True, svd_solver="full").fit_transform(rows) * np.sqrt(200 / 199)  # by n, not n - 1
    np.testing.assert_allclose(abs(white), abs(wanted), atol=1e-3)
    assert found.rank == 4


def test_components_that_do_not_exist_are_zero() -> None:
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    few = Whitening.fit(rows, 16)
    assert few.rank == 4 and few(rows).shape == (5, 16) and not bool(few(rows)[:, 4:].any())
    torch.testing.assert_close(few(rows).var(0, correction=0)[:4], torch.ones(4), atol=1e-3, rtol=0)
    for same in (torch.ones(7, 3), torch.zeros(7, 3), rows[:1]):
        none = Whitening.fit(same, 2)
        assert none.rank == 0 and not bool(none(same).any())


def test_maps_are_whitened_at_each_position() -> None:
    maps = torch.randn(10, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    fitted = Whitening.fit(maps.movedim(1, -1).flatten(0, -2), 3)
    torch.testing.assert_close(fitted(maps)[:, :, 1, 2], fitted(maps[:, :, 1, 2]))
