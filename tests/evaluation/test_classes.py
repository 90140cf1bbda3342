"""Tables by class, by hand; and projections of features that keep groups together."""

import numpy as np

from vision_mtl.evaluation.classes import class_rows, confusion_matrix, csv_text
from vision_mtl.evaluation.embedding import FEWEST, embed


def test_rows_by_hand() -> None:
    true, pred = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 0])
    counts = confusion_matrix(pred, true, 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    cat, dog, fox, owl = class_rows(counts, ["cat", "dog", "fox", "owl"])
    assert cat == {"class": "cat", "precision": 0.5, "recall": 1 / 3, "n": 3, "most_confused_with": "dog", "times": 2}
    assert dog["precision"] == 0.5 and dog["recall"] == 1 and dog["most_confused_with"] is None
    assert fox["precision"] is None and fox["recall"] == 0 and fox["most_confused_with"] == "cat"
    assert owl["precision"] is owl["recall"] is None and owl["n"] == 0


def test_csv_quotes_names_and_leaves_cells_empty() -> None:
    text = csv_text(class_rows(np.array([[2, 1], [0, 0]]), ["cat, tabby", "dog"]))
    assert text.splitlines() == [
        "class,precision,recall,n,most_confused_with,times",
        '"cat, tabby",1,0.666667,3,dog,1',
        "dog,0,,0,,",
    ]


def test_groups_stay_together_in_the_projection() -> None:
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(40, 10)), random.normal(size=(40, 10)) + 20])
    points = embed(features)
    gap = np.linalg.norm(points[:40].mean(0) - points[40:].mean(0))
    spread = max(np.linalg.norm(g - g.mean(0), axis=1).mean() for g in (points[:40], points[40:]))
    assert points.shape == (80, 2) and gap > 2 * spread
    np.testing.assert_array_equal(points, embed(features))
    assert embed(features[: FEWEST - 1]) is None and embed(np.ones((30, 4))) is None
    assert embed(features[:, :1]).shape == (80, 2)
