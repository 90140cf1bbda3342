"""Batches are a pure function of the step, whatever the number of processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.data.batches import Batches


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 3))
def test_every_image_once_an_epoch(count: int, batch: int, seed: int) -> None:
    indices = torch.arange(count) * 3 + 1
    batches = Batches(indices, batch, seed)
    steps = -(-3 * count // batch)
    seen, epochs = (torch.cat(parts)[: 3 * count] for parts in zip(*(batches.at(s) for s in range(steps)), strict=True))
    for epoch in range(3):
        rows = seen[epoch * count : (epoch + 1) * count]
        assert torch.equal(rows.sort().values, indices)
        assert bool((epochs[epoch * count : (epoch + 1) * count] == epoch).all())


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_one_global_batch(world_size: int) -> None:
    indices = torch.arange(37)
    alone = Batches(indices, 16, seed=1)
    parts = [Batches(indices, 16 // world_size, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    for step in range(7):
        for whole, together in zip(alone.at(step), zip(*(part.at(step) for part in parts), strict=True), strict=True):
            assert torch.equal(torch.cat(together), whole)


def test_orders_differ_between_epochs_and_seeds() -> None:
    indices = torch.arange(100)
    first = Batches(indices, 100, seed=0)
    assert not torch.equal(first.at(0)[0], first.at(1)[0])
    assert not torch.equal(first.at(0)[0], Batches(indices, 100, seed=1).at(0)[0])
    assert torch.equal(first.at(5)[0], Batches(indices, 100, seed=0).at(5)[0])


def test_nothing_to_see_is_refused() -> None:
    with pytest.raises(ValueError, match="need images"):
        Batches(torch.arange(0), 8, seed=0)
