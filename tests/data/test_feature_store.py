"""The store of features: computed once, continued after an interruption, repaired where it is damaged."""

from pathlib import Path

import numpy as np
import pytest

from vision_mtl.data import feature_store
from vision_mtl.data.feature_store import Features, features_in_memory, open_features
from vision_mtl.data.store import clean

SHAPE = (10, 2, 3)
VALUES = np.arange(60, dtype=np.float16).reshape(SHAPE)


class Computation:
    """Computes rows of `VALUES`; notes which, and is interrupted at the call `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.starts = stop_at, []

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if len(self.starts) == self.stop_at:
            raise KeyboardInterrupt
        self.starts.append(start)
        return VALUES[start:stop]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "CHUNK", 4)


def opened(root: Path, fill: Computation) -> Features:
    return open_features(root, "key", SHAPE, fill, "features")


def test_they_are_computed_once(tmp_path: Path) -> None:
    first, second = Computation(), Computation()
    found = opened(tmp_path, first)
    assert first.starts == [0, 4, 8] and not found.cached and found.seconds > 0
    again = opened(tmp_path, second)
    assert second.starts == [] and again.cached and again.seconds == found.seconds
    assert np.array_equal(found.values, VALUES) and np.array_equal(again.values, VALUES)
    assert not again.values.flags.writeable
    assert np.array_equal(features_in_memory(SHAPE, Computation(), "features").values, VALUES)


def test_an_interrupted_computation_continues(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Computation(stop_at=2))
    rest = Computation()
    assert np.array_equal(opened(tmp_path, rest).values, VALUES) and rest.starts == [8]


def test_a_damaged_part_is_computed_again(tmp_path: Path) -> None:
    opened(tmp_path, Computation())
    (file,) = tmp_path.glob("store/features-key/features.npy")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = Computation()
    assert np.array_equal(opened(tmp_path, again).values, VALUES) and again.starts == [8]
    file.write_bytes(b"no array")
    whole = Computation()
    assert np.array_equal(opened(tmp_path, whole).values, VALUES) and whole.starts == [0, 4, 8]


def test_cleaning_the_stores_removes_them(tmp_path: Path) -> None:
    opened(tmp_path, Computation())
    assert [folder.name for folder, _ in clean(tmp_path)] == ["features-key"]
    assert not list(tmp_path.glob("store/*"))
