"""The linear probe against other solvers of scikit-learn, and its choice of the strength."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.linear_probe import (
    DEFAULT_STRENGTH,
    STRENGTHS,
    fit_linear_probe,
    standardise,
    validation_warning,
)


def drawn(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6)) @ random.normal(size=(6, d)) + random.normal(size=(n, d))
    y = (x @ random.normal(size=(d, k)) + 3 * random.gumbel(size=(n, k))).argmax(1)
    return standardise(x, np.arange(n)), y


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
def test_agrees_with_another_solver(k: int, strength: float) -> None:
    x, y = drawn(300, 20, k)
    path = [c for c in STRENGTHS if c <= strength]  # each fit starts from the last one
    probe = fit_linear_probe("single_label", x, y, x[:0], y[:0], num_outputs=k, strengths=path)
    assert probe.strength == DEFAULT_STRENGTH and probe.val_score is None
    only = fit_linear_probe("single_label", x, y, x[:0], y[:0], num_outputs=k, strengths=[strength])
    assert only.strength == strength, "nothing is to be chosen"
    probe = fit_linear_probe("single_label", x, y, x, y, num_outputs=k, strengths=[strength])
    oracle = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(probe.predict(x), oracle.predict_proba(x), atol=5e-4)
    if k > 2:  # for two classes scikit-learn penalises one difference instead of two weights
        error = probe.predict(x) - np.eye(k)[y]
        gradient = x.T @ error / len(x) + probe.weight / (len(x) * strength)
        assert abs(gradient).max() < 2e-5
    assert probe.converged


def test_the_path_ends_where_a_single_fit_does() -> None:
    x, y = drawn(300, 20, 4)
    alone = fit_linear_probe("single_label", x, y, x, y, num_outputs=4, strengths=[10.0])
    along = fit_linear_probe("single_label", x, y, x, y, num_outputs=4)
    assert along.val_score >= alone.val_score
    if along.strength == 10.0:
        np.testing.assert_allclose(along.predict(x), alone.predict(x), atol=2e-3)


def test_the_strength_is_the_best_on_validation_and_ties_go_to_the_stronger() -> None:
    x, y = drawn(120, 60, 3)
    train, val = slice(0, 60), slice(60, 120)
    args = x[train], y[train], x[val], y[val]
    probe = fit_linear_probe("single_label", *args, num_outputs=3)
    single = [fit_linear_probe("single_label", *args, num_outputs=3, strengths=[c]).val_score for c in STRENGTHS]
    assert probe.val_score == max(single) and probe.strength == STRENGTHS[int(np.argmax(single))]
    far = np.array([[-5.0], [5.0]])
    tied = fit_linear_probe("single_label", far, np.array([0, 1]), far, np.array([0, 1]), num_outputs=2)
    assert tied.strength == STRENGTHS[0]


def test_classes_without_a_training_image_have_no_probability() -> None:
    x, y = drawn(90, 8, 3)
    for kept in ([0, 2], [1]):
        rows = np.isin(y, kept)
        probe = fit_linear_probe("single_label", x[rows], y[rows], x, y, num_outputs=4)
        p = probe.predict(x)
        assert p.shape == (90, 4) and p.sum(1) == pytest.approx(1)
        assert (p[:, [k for k in range(4) if k not in kept]] == 0).all()


def test_labels_are_fitted_separately() -> None:
    x, y = drawn(200, 10, 3)
    labels = np.stack([y == 0, y > 0, np.ones(200), np.zeros(200)], axis=1).astype(np.int8)
    probe = fit_linear_probe("multi_label", x, labels, x, labels, num_outputs=4, strengths=[0.1])
    p = probe.predict(x)
    for k in (0, 1):
        oracle = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-10, max_iter=10_000).fit(x, labels[:, k])
        np.testing.assert_allclose(p[:, k], oracle.predict_proba(x)[:, 1], atol=2e-3)
    assert (p[:, 2] == 1).all() and (p[:, 3] == 0).all()


def test_numbers_are_fitted_by_ridge() -> None:
    x, _ = drawn(200, 10, 2)
    y = (3 * x[:, 0] + 7 + np.random.default_rng(1).normal(size=200)).astype(np.float32)
    probe = fit_linear_probe("regression", x[:100], y[:100], x[100:], y[100:], num_outputs=1)
    oracle = Ridge(alpha=1 / probe.strength).fit(x[:100], y[:100])
    np.testing.assert_allclose(probe.predict(x[100:]), oracle.predict(x[100:]), atol=1e-5)
    assert probe.val_score == pytest.approx(-abs(oracle.predict(x[100:]) - y[100:]).mean(), abs=1e-5)


def test_a_kind_without_a_probe_is_refused() -> None:
    x, y = drawn(10, 3, 2)
    with pytest.raises(UserError, match="unknown kind of task for a linear probe 'dense'"):
        fit_linear_probe("dense", x, y, x, y, num_outputs=2)


def test_standardised_by_training_rows_only() -> None:
    features = np.array([[0.0, 5.0], [2.0, 5.0], [9.0, 8.0]])
    found = standardise(features, np.array([0, 1]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [8, 0]])


def test_scores_of_validation() -> None:
    assert label_kind("regression").validation_score(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == -0.5
    labels, several = np.array([[1, 0], [0, 0]]), label_kind("multi_label")
    assert several.validation_score(np.array([[0.9, 0.9], [0.1, 0.9]]), labels) == 1.0  # the first label only
    assert several.validation_score(np.array([[0.9, 0.9]]), labels[:1]) == 0.5


def test_few_validation_images_warn() -> None:
    assert validation_warning("single_label", 50, 10) is None
    assert "49 validation images for 10 classes" in validation_warning("single_label", 49, 10)
    assert "no validation image" in validation_warning("regression", 0, 1)
