"""Runs are paired by image and seed whatever the order of their rows; different images are an error."""

from __future__ import annotations

import numpy as np
import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.evaluation.instance_scores import InstanceScores
from vision_mtl.study.collect import Collection, compare_arms, score_rows

ARMS = {"plain": ["finetune"], "other": {"stages": ["finetune"], "finetune": {"x": 1}}}


def pets(
    value: list[float], said: list[int] | None = None, fraction: float = 1.0, method: str = "head"
) -> InstanceScores:
    true = np.array([0, 0, 0, 1])
    said_all = np.array(said if said is not None else [0, 0, 0, 0])
    return InstanceScores("pets", method, fraction, np.arange(4), np.array(value, float), true, said_all)


def test_pairs_follow_names_not_order(written) -> None:
    runs = written(ARMS, [1.0], [0, 1])
    for seed in (0, 1):
        runs.write("plain", 1.0, seed, ["a", "b", "c", "d"], [pets([1, 0, 1, 0])])
        runs.write("other", 1.0, seed, ["d", "c", "b", "a"], [pets([1, 1, 0, 1])])  # d, c and a are right
    collection = Collection(runs.plan, runs.finals, runs.folder, [0, 1], "accuracy")
    np.testing.assert_array_equal(collection.values("other", 1.0, "pets").values, [[1, 0, 1, 1]] * 2)
    (one,) = compare_arms(collection, [("other", "plain")], [1.0], guard_skew=False)
    assert one.difference.value == pytest.approx(0.25) and one.num_seeds == 2 and one.difference.n == 4
    assert (one.arm, one.baseline, one.task, one.fraction) == ("other", "plain", "pets", 1.0)


def test_balanced_accuracy_weighs_by_class(written) -> None:
    runs = written({"plain": ["finetune"]}, [1.0], [0])
    runs.write("plain", 1.0, 0, list("abcd"), [pets([1, 1, 0, 1])])  # 2 of 3 cats, 1 of 1 dog
    collection = Collection(runs.plan, runs.finals, runs.folder, [0], "balanced_accuracy")
    assert collection.parts(collection.values("plain", 1.0, "pets")) == [(0.5, 3), (0.5, 1)]
    (row,) = score_rows(collection, ["plain"], [1.0], guard_skew=False)
    assert row["score"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["chance"]["value"] == 0.5 and row["score"]["low"] is None  # one seed has no interval


def test_chance_is_the_score_of_permuted_predictions(written) -> None:
    runs = written({"plain": ["finetune"]}, [1.0], [0, 1])
    runs.write("plain", 1.0, 0, list("abcd"), [pets([1, 1, 1, 0], said=[0, 0, 0, 0])])  # always cat: 3/4
    runs.write("plain", 1.0, 1, list("abcd"), [pets([1, 1, 0, 1], said=[0, 0, 1, 1])])  # half and half: 1/2
    collection = Collection(runs.plan, runs.finals, runs.folder, [0, 1], "accuracy")
    (row,) = score_rows(collection, ["plain"], [1.0], guard_skew=False)
    assert row["chance"]["value"] == pytest.approx((0.75 + 0.5) / 2)
    assert row["by_seed"] == [{"seed": 0, "value": 0.75}, {"seed": 1, "value": 0.75}]


def test_a_probe_is_read_at_each_fraction(written) -> None:
    runs = written({"probe": ["probe"], "plain": ["finetune"]}, [0.1, 1.0], [0])
    judged = [pets([1, 0, 0, 0], fraction=0.1, method="linear"), pets([1, 1, 1, 1], fraction=1.0, method="linear")]
    runs.write("probe", 0.1, 0, list("abcd"), [*judged, pets([0, 0, 0, 0], method="knn")])
    collection = Collection(runs.plan, runs.finals, runs.folder, [0], "accuracy")
    rows = score_rows(collection, ["probe"], [0.1, 1.0], guard_skew=False)
    assert [row["score"]["value"] for row in rows] == [0.25, 1.0]


def test_a_number_has_no_chance_and_no_classes(written) -> None:
    runs = written({"plain": ["finetune"]}, [1.0], [0])
    runs.write("plain", 1.0, 0, list("ab"), [InstanceScores("age", "head", 1.0, np.arange(2), np.array([-3.0, -1.0]))])
    (row,) = score_rows(
        Collection(runs.plan, runs.finals, runs.folder, [0], "balanced_accuracy"), ["plain"], [1.0], False
    )
    assert row["score"]["value"] == -2.0 and row["chance"] is None


def test_other_test_images_are_an_error(written) -> None:
    runs = written(ARMS, [1.0], [0, 1])
    runs.write("plain", 1.0, 0, list("abcd"), [pets([1, 0, 1, 0])])
    runs.write("plain", 1.0, 1, list("abce"), [pets([1, 0, 1, 0])])
    collection = Collection(runs.plan, runs.finals, runs.folder, [0, 1], "accuracy")
    with pytest.raises(UserError, match="arm plain, task pets, seeds 0 and 1: the test images differ"):
        collection.values("plain", 1.0, "pets")
    runs.write("plain", 1.0, 1, list("abcd"), [pets([1, 0, 1, 0])])
    for seed in (0, 1):
        runs.write("other", 1.0, seed, list("abcf"), [pets([1, 0, 1, 0])])
    collection = Collection(runs.plan, runs.finals, runs.folder, [0, 1], "accuracy")
    with pytest.raises(UserError, match="task pets, arms other and plain: the test images differ"):
        compare_arms(collection, [("other", "plain")], [1.0], guard_skew=False)


def test_a_file_that_cannot_be_read_is_named(written) -> None:
    runs = written({"plain": ["finetune"]}, [1.0], [0])
    folder = runs.write("plain", 1.0, 0, list("abcd"), [pets([1, 0, 1, 0])])
    (folder / "test_instances.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"test_instances\.parquet. cannot be read .*delete its folder"):
        Collection(runs.plan, runs.finals, runs.folder, [0], "accuracy").values("plain", 1.0, "pets")
