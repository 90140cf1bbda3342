"""What several processes agree on, with their message made by hand."""

from types import SimpleNamespace

import pytest
import torch

from vision_mtl.training.process_sync import sync_processes
from vision_mtl.training.step_record import StepRecord, means
from vision_mtl.training.strategies.single_process import SingleProcess


def together(*others: list[float]) -> SimpleNamespace:
    """An accelerator whose other processes say `others`."""
    rest = torch.tensor(others, dtype=torch.float64)
    gather = lambda own: torch.cat((own, rest))  # noqa: E731
    return SimpleNamespace(num_processes=1 + len(others), device=torch.device("cpu"), gather=gather)


def record(step: int, loss: float, sums: dict[str, tuple[float, float]]) -> StepRecord:
    return StepRecord(step, loss, means(sums), 1.0, 0.1, sums=sums)


def test_a_parts_mean_is_over_all_images_and_not_over_processes() -> None:
    # the other: 2 seconds, asked to stop; a step of loss 3, 3 images of blur, none of colour, an unusable one of grid,
    # and one of loss 5 with nothing but 2 images of colour
    first = [3.0, 9.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    second = [5.0, 0.0, 0.0, 0.0, 8.0, 2.0, 1.0, 0.0, 0.0, 0.0]
    records = [record(7, 1.0, {"colour": (4.0, 2.0), "blur": (1.0, 1.0)}), record(8, 2.0, {"colour": (1.0, 1.0)})]
    found = sync_processes(together([2.0, 1.0, *first, *second]), ["blur", "colour", "grid"], 5.0, False, records)
    assert (found.seconds, found.stopping) == (5.0, True)
    assert [(r.step, r.loss) for r in found.records] == [(7, 2.0), (8, 3.5)]
    assert found.records[0].shown == pytest.approx({"blur": 2.5, "colour": 2.0, "grid": 0.0})
    assert found.records[1].shown == {"colour": 3.0}


def test_a_part_that_nobody_has_is_absent_and_one_process_asks_nobody() -> None:
    nobody = sync_processes(together([1.0, 0.0, 1.0, 0.0, 0.0, 0.0]), ["blur"], 1.0, False, [record(0, 1.0, {})])
    assert nobody.records[0].shown == {}
    alone, own = SingleProcess(SimpleNamespace(num_processes=1)), record(0, 2.0, {"blur": (3.0, 2.0)})
    assert alone.sync([], 1.0, True, [own]).records == [own]
