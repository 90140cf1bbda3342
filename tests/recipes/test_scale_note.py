"""The note about weights that were trained on images of another size."""

from types import SimpleNamespace

import pytest

from vision_mtl.recipes.initial_weights import scale_note


@pytest.mark.parametrize(
    ("theirs", "ours", "source", "is_told"),
    [
        (224, 64, "package", True),
        (224, 128, "package", False),
        (64, 160, "timm", True),
        (224, 64, "file", False),
        (0, 64, "timm", False),
    ],
)
def test_a_size_unlike_that_of_the_weights_is_told(theirs: int, ours: int, source: str, is_told: bool) -> None:
    backbone = SimpleNamespace(weights_size=theirs, input_size=(ours, 2 * ours), weights={"source": source})
    assert bool(text := scale_note(backbone)) is is_told
    if is_told:
        assert f"images of {theirs} pixels, and the network sees {ours}" in text
        assert ("--backbone.input_size" in text) == (ours < theirs)
