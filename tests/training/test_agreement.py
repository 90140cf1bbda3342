"""What several processes agree on, with their message made by hand."""

from types import SimpleNamespace

import pytest
import torch

from vision_mtl.training.agreement import agree


def together(*others: list[float]) -> SimpleNamespace:
    """An accelerator whose other processes say `others`."""
    rest = torch.tensor(others, dtype=torch.float64)
    gather = lambda own: torch.cat((own, rest))  # noqa: E731
    return SimpleNamespace(num_processes=1 + len(others), device=torch.device("cpu"), gather=gather)


def test_a_parts_mean_is_over_all_images_and_not_over_processes() -> None:
    # the other: 2 seconds, asked to stop, loss 3; 3 images of blur, none of colour, an unusable one of grid
    there = [2.0, 1.0, 3.0, 9.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    sums = {"colour": (4.0, 2.0), "blur": (1.0, 1.0)}
    found = agree(together(there), ["blur", "colour", "grid"], 5.0, False, 1.0, sums)
    assert (found.seconds, found.stopping, found.loss) == (5.0, True, 2.0)
    assert found.parts == pytest.approx({"blur": 2.5, "colour": 2.0, "grid": 0.0})


def test_a_part_that_nobody_has_is_absent_and_one_process_asks_nobody() -> None:
    assert agree(together([1.0, 0.0, 1.0, 0.0, 0.0, 0.0]), ["blur"], 1.0, False, 1.0, {}).parts == {}
    alone = SimpleNamespace(num_processes=1)
    assert agree(alone, [], 1.0, True, 2.0, {"blur": (3.0, 2.0)}).parts == {"blur": 1.5}
