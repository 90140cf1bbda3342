"""The range of a source: its option, the run to start from, or its training images."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.depth import ValueRange
from vision_mtl.data.options import Data, Task
from vision_mtl.data.range_option import RangeOption, range_of_source, read_range
from vision_mtl.data.value_ranges import KnownRanges, described, find_range, given_range, percentiles


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("full", RangeOption("full")),
        ([-1024, 3071], RangeOption("value", -1024, 3071)),
        (["0.5%", "99%"], RangeOption("percent", 0.5, 99)),
        (["-1", "2.5"], RangeOption("value", -1, 2.5)),
    ],
)
def test_the_option(given: object, expected: object) -> None:
    assert read_range("data.value_range", given) == expected


@pytest.mark.parametrize(
    "given", [[1], [2, 1], [1, 1], ["1%", 2], ["a", "b"], [0, float("inf")], ["-1%", "5%"], [1, 2, 3]]
)
def test_a_wrong_option_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"data\.value_range must be two numbers .* found"):
        Data(value_range=given)


def test_wrong_bands_are_refused() -> None:
    for bands in ([1, 2], [0, 1, -1]):
        with pytest.raises(UserError, match=r"data\.rgb_bands must be three bands"):
            Data(rgb_bands=bands)


def test_tasks_on_one_source_must_agree() -> None:
    Task(source="folder/x", value_range=[0, 1])
    with pytest.raises(UserError, match=r"tasks\.a\.value_range is 0 and 1, tasks\.b\.value_range is 0 and 2"):
        range_of_source("folder/x", None, {"a": [0, 1], "b": [0, 2]})
    assert range_of_source("folder/x", [5, 6], {"a": [0, 1], "b": None}) == RangeOption("value", 0, 1)
    assert range_of_source("folder/y", [5, 6], {}) == RangeOption("value", 5, 6)


def test_what_a_run_knows() -> None:
    ct, other = ValueRange(-1024, 3071, "minimum and maximum of 3 training images", "integer"), ValueRange(0, 1)
    known = KnownRanges.of("runs/a", {"value_ranges": described({"folder/ct": ct})})
    assert given_range("folder/ct", "int16", None, known) == ct
    assert given_range("folder/new", "int16", None, known).low == -1024
    assert given_range("folder/new", "int16", RangeOption("value", 0, 9), known).high == 9
    assert given_range("folder/ct", "int16", RangeOption("percent", 1, 99), known) is None
    with pytest.raises(UserError, match=r"float32 values, and runs/a was trained on integer ones"):
        given_range("folder/new", "float32", None, known)
    several = KnownRanges("runs/a", {"folder/ct": ct, "folder/f": other})
    with pytest.raises(UserError, match=r"several ranges \(folder/ct: -1024 to 3071; folder/f: 0 to 1\)"):
        given_range("folder/new", "int16", None, several)
    for state in ({}, {"value_ranges": {}}):  # the first: a run from before there were ranges
        with pytest.raises(UserError, match=r"has uint16 values.*runs/b was trained on 8-bit images; declare data"):
            given_range("folder/new", "uint16", None, KnownRanges.of("runs/b", state))
    assert given_range("folder/new", "uint16", None, None) is None
    assert given_range("folder/new", "uint16", RangeOption("full"), None).high == 65535


def found(images: list[np.ndarray], tmp_path: Path, option: RangeOption | None = None) -> ValueRange:
    source = SimpleNamespace(read=lambda item: images[item])
    lows, highs = (np.array([end(i) for i in images], float) for end in (np.nanmin, np.nanmax))
    kinds, items = np.unique([i.dtype.name for i in images]), list(range(len(images)))
    (tmp_path / "store").mkdir(exist_ok=True)
    where = tmp_path / "store"
    return find_range("folder/x", source, items, option, (lows, highs), kinds, np.arange(len(images)), where, 1, None)


def test_minimum_and_maximum(tmp_path: Path) -> None:
    value_range = found([np.array([[[3, 5]]]), np.array([[[-2, 4]]])], tmp_path)
    assert (value_range.low, value_range.high, value_range.kind) == (-2, 5, "integer")
    assert value_range.origin == "minimum and maximum of 2 training images"


def test_what_has_no_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the single value 7"):
        found([np.full((1, 1, 2), 7)], tmp_path)
    with pytest.raises(UserError, match="float64 and int64 images, whose scales differ"):
        found([np.array([[[3, 5]]]), np.array([[[0.5, 1]]])], tmp_path)


def test_percentiles_are_those_of_all_values_and_cached(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(20, 20, 1)) * (k + 1) for k in range(5)]
    images[0][0, 0] = 1e9  # an outlier does not change the precision
    option = RangeOption("percent", 1, 99)
    value_range = found(images, tmp_path, option)
    every = np.concatenate([i.ravel() for i in images])
    low, high = np.quantile(every, [0.01, 0.99], method="lower")
    assert value_range.low == pytest.approx(low, abs=1e-3) and value_range.high == pytest.approx(high, abs=1e-3)
    assert value_range.origin == "1% and 99% of the values of 5 training images"
    assert found([i * np.nan if k else i for k, i in enumerate(images)], tmp_path, option).low == value_range.low


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-40000, 40000), min_size=2, max_size=60), st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.99, 1.0])
)
def test_percentiles_of_integers_are_exact(values: list[int], share: float) -> None:
    array = np.array(values)
    (result,) = percentiles(lambda: [array[:7], array[7:]], (share,), (float(array.min()), float(array.max())))
    assert result == np.sort(array)[int(np.floor(share * (len(array) - 1)))]
