"""Label fractions: nested, stratified, independent of the order and number of images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.fractions import label_fraction


def names(count: int) -> list[str]:
    return [f"folder::image_{i}" for i in range(count)]


@settings(max_examples=40, deadline=None)
@given(
    classes=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    small=st.floats(0.001, 1),
    large=st.floats(0.001, 1),
    seed=st.integers(0, 9),
)
def test_nested_with_every_class(classes: list[int], small: float, large: float, seed: int) -> None:
    strata = np.array(classes)
    small, large = min(small, large), max(small, large)
    inner, outer = (label_fraction(names(len(strata)), strata, f, seed) for f in (small, large))
    assert set(inner.rows) <= set(outer.rows)
    assert set(strata[inner.rows]) == set(classes)
    assert inner.num_labelled == len(inner.rows) and inner.fraction == len(inner.rows) / len(strata)


def test_shares_of_each_class() -> None:
    strata = np.repeat([0, 1, 2], [100, 60, 4])
    chosen = label_fraction(names(164), strata, 0.1, 0)
    assert np.bincount(strata[chosen.rows]).tolist() == [10, 6, 1]
    assert chosen.warning is None
    assert len(label_fraction(names(164), strata, 1.0, 0).rows) == 164


def test_order_and_other_images_change_nothing() -> None:
    strata, called = np.arange(80) % 4, names(80)
    first = {called[i] for i in label_fraction(called, strata, 0.2, 3).rows}
    order = np.random.default_rng(0).permutation(80)
    shuffled = [called[i] for i in order]
    assert {shuffled[i] for i in label_fraction(shuffled, strata[order], 0.2, 3).rows} == first
    assert {called[i] for i in label_fraction(called, strata, 0.2, 4).rows} != first


def test_rounding_up_warns() -> None:
    chosen = label_fraction(names(50), np.arange(50) % 10, 0.01, 0)
    assert chosen.num_labelled == 10 and chosen.fraction == 0.2 and chosen.requested == 0.01
    assert "0.01 of 50 labels is 0.5; one image of each of 10 classes makes it 10" in chosen.warning


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_invalid_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"must lie in \(0, 1\]; found"):
        label_fraction(names(4), np.zeros(4), fraction, 0)
    with pytest.raises(ValueError, match="no image"):
        label_fraction([], np.zeros(0), 0.5, 0)


def test_strata_of_labels_and_numbers() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], np.int8)
    assert label_kind("multi_label").strata(labels).tolist() == [0, 1, 2, 0]
    assert np.bincount(label_kind("regression").strata(np.linspace(0, 1, 100))).tolist() == [10] * 10
    assert label_kind("single_label").strata(np.array([3, 1])).tolist() == [3, 1]
