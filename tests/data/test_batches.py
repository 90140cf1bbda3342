"""Batches are a pure function of the step, for any number of processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.data.batches import Batches


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 3))
def test_every_image_once_per_epoch(count: int, batch: int, seed: int) -> None:
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


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="need images"):
        Batches(torch.arange(0), 8, seed=0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0, 7.0]), min_size=1, max_size=40), st.integers(0, 3))
def test_weighted_images_occur_in_proportion_to_their_weights(weights: list[float], seed: int) -> None:
    weights = torch.tensor([*weights, 1.0])
    count = len(weights)
    batches = Batches(torch.arange(count) + 5, count, seed, weights=weights)
    expected = weights / weights.mean()
    for epoch in range(3):
        seen, numbers = batches.at(epoch)
        times = torch.bincount(seen - 5, minlength=count)
        assert bool((times - expected).abs().lt(1 + 1e-4).all()) and int(times.sum()) == count
        assert bool((times[weights == 0] == 0).all())
        assert len({*zip(seen.tolist(), numbers.tolist(), strict=True)}) == count  # each repeat has different damage


def test_equal_weights_change_nothing() -> None:
    plain, weighted = Batches(torch.arange(20), 6, 0), Batches(torch.arange(20), 6, 0, weights=torch.full((20,), 0.3))
    assert all(torch.equal(plain.at(step)[0], weighted.at(step)[0]) for step in range(9))


def test_weights_hold_on_average_and_epoch_numbers_are_unique() -> None:
    weights = torch.tensor([0.1, 1.0, 2.5])
    batches = Batches(torch.arange(3), 3, 0, weights=weights)
    seen, numbers = (torch.cat(parts) for parts in zip(*(batches.at(step) for step in range(600)), strict=True))
    shares = torch.bincount(seen) / len(seen)
    assert shares.tolist() == pytest.approx((weights / weights.sum()).tolist(), abs=0.01)
    assert len({*zip(seen.tolist(), numbers.tolist(), strict=True)}) == len(seen)
