"""How the page of `--stage data` tells the images of each class."""

from vision_mtl.recipes.data_summary import CLASSES, class_text
from vision_mtl.recipes.findings_page import WIDTH


def counts(train: int, val: int, test: int) -> dict[str, int]:
    """Return a class's images."""
    return {"train": train, "val": val, "test": test}


def test_even_classes_take_a_line() -> None:
    even = {f"class {number} with a long name": counts(100 + number % 3, 10, 20) for number in range(15)}
    text = class_text("cars", {"images_by_class": even})
    assert text.startswith("cars: each of the 15 classes has 100 to 102 train, 10 val, 20 test images: class 0 with")
    assert " ".join(text.split()).endswith("and 3 more") and max(map(len, text.splitlines())) <= WIDTH
    assert class_text("a", {"images_by_class": {"b": counts(5, 1, 1)}}).startswith("a: the only class has 5 train")


def test_of_uneven_classes_the_largest_and_smallest_are_listed() -> None:
    uneven = {f"k{number}": counts(1000 - 5 * number, 10, 20) for number in range(200)} | {
        "two\nlines": counts(0, 0, 1)
    }
    lines = [line.split() for line in class_text("cars", {"images_by_class": uneven}).strip().splitlines()]
    assert len(lines) == CLASSES + 3, "a head, a line, and one for the others"
    assert lines[2] == ["k0", "1,000", "10", "20"] and lines[-1] == ["two\\nlines", "0", "0", "1"]
    assert lines[2 + CLASSES // 2][:3] == ["...", str(201 - CLASSES), "others,"]


def test_numbers_have_a_range() -> None:
    values = {
        "train": {"low": 1.0, "median": 2.5, "high": 1700000001.0},
        "test": {"low": 2.0, "median": 2.0, "high": 2.0},
    }
    assert class_text("age", {"values": values}) == "values of age: train 2.5 (1-1700000001); test 2"
