"""Names of splits and shards are read by their words."""

import pytest

from vision_mtl.data.split_names import split_of, unnamed_parts


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Validation", "val"),
        ("train_clean", "train"),
        ("test-other", "test"),
        ("train2017", "train"),
        ("train-val-000.tar", "train"),
        ("imagenet1k-validation-00.tar", "val"),
        ("shards/test/000.tar", "test"),
        ("all", None),
        ("unsupervised", None),
        ("pretraining", None),
        ("my_train_test", None),
        ("0001.tar", None),
    ],
)
def test_the_split_of_a_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_unnamed_parts_are_reported_beside_named_ones_only() -> None:
    assert unnamed_parts("s", {"a": 1, "b": 2}, "splits", "") == []
    assert unnamed_parts("s", {"train": 1, "test": 2}, "splits", "") == []
    (found,) = unnamed_parts("s", {"train": 1, "extra": 2000}, "splits", "Rename it.")
    assert (found.severity, found.advice, found.images) == ("warning", "Rename it.", 2000)
    assert found.text.startswith("s: splits extra (2,000 images) name neither train, validation nor test: they are")
