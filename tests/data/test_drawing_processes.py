"""Several processes return what one would, in order, and pass errors on."""

from pathlib import Path

import numpy as np
import pytest

from vision_mtl.data import processes
from vision_mtl.data.processes import in_processes
from vision_mtl.data.sources.rendered import Rendered
from vision_mtl.data.store import Settings, open_store


@pytest.mark.parametrize("count", [10, 600])
def test_results_come_in_order(count: int) -> None:
    assert list(in_processes(abs, range(-count, 0), num_workers=2)) == list(range(count, 0, -1))


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(in_processes(int, ["1"] * 500 + ["one"], num_workers=2))


def test_drawn_images_do_not_depend_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FEWEST", 4)
    source = Rendered("pets", tmp_path)
    items = source.items()[::150]
    stores = [
        open_store("rendered/pets", source, items, Settings((32, 32)), tmp_path / str(count), num_workers=count)
        for count in (1, 2)
    ]
    assert np.array_equal(stores[0].images, stores[1].images) and np.array_equal(stores[0].hashes, stores[1].hashes)
    assert np.ptp(np.asarray(stores[0].images)) > 100
