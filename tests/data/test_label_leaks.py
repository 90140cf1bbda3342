"""Labels that only number files or folders are reported; other labels are not."""

import numpy as np
import pytest

from vision_mtl.data.label_leaks import label_leak
from vision_mtl.data.targets import Target

FLAT = [f"img{n}.png" for n in range(1, 13)]
FOLDERS = [f"{folder}/{n}.png" for folder in ("bee", "ant", "cow") for n in range(4)]


def regression(values: list[float]) -> Target:
    return Target("regression", [], np.array(values, np.float32))


def classes(texts: list[str]) -> Target:
    names = sorted(set(texts))
    return Target("single_label", names, np.array([names.index(text) for text in texts]))


@pytest.mark.parametrize(
    ("identities", "values"),
    [
        (FLAT, list(range(12))),  # in numeric order, as given
        (FLAT, list(range(120, 0, -10))),
        (sorted(FLAT), list(range(12))),  # in alphabetical order
        (FLAT[::-1], list(range(12, 0, -1))),  # rows in another order, values by the numbers in the names
        (FLAT, [*range(11), float("nan")]),  # the last one blank
    ],
)
def test_a_count_is_found_in_every_order(identities: list[str], values: list[float]) -> None:
    assert "only counts the files" in label_leak("age", regression(values), identities)


def test_classes_that_count_are_found() -> None:
    assert "only counts the files" in label_leak("id", classes([str(n) for n in range(12)]), FLAT)


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_number_is_found(first: int) -> None:
    rank = {"ant": 0, "bee": 1, "cow": 2}
    texts = [str(rank[identity.split("/")[0]] + first) for identity in FOLDERS]
    assert "number of the image's folder" in label_leak("scene", classes(texts), FOLDERS)
    assert "number of the image's folder" in label_leak("scene", regression([float(t) for t in texts]), FOLDERS)


@pytest.mark.parametrize(
    ("target", "identities"),
    [
        (regression([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]), FLAT),
        (regression([1.0] * 12), FLAT),
        (regression(list(range(9)) + [float("nan")] * 3), FLAT),  # too few labels
        (classes([str(n % 3) for n in range(12)]), FLAT),
        (classes([identity.split("/")[0] for identity in FOLDERS]), FOLDERS),
        (
            classes(["0"] * 4 + ["1"] * 4 + ["2"] * 4),
            [f"{n}/{k}.png" for n in range(3) for k in range(4)],
        ),  # folder names
        (Target("multi_label", ["a"], np.ones((12, 1), np.int8)), FLAT),
    ],
)
def test_ordinary_labels_give_no_warning(target: Target, identities: list[str]) -> None:
    assert label_leak("x", target, identities) is None
