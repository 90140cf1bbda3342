"""Several tasks share each batch in their shares, and each task's images are seen once in each of its epochs."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.task_batches import CYCLE, TaskBatches

SIZES = {"digits": 500, "cars": 300, "faces": 195, "pets": 5}


def batches_of(sizes: dict[str, int] = SIZES, batch: int = 32, **options: float) -> TaskBatches:
    start = 0
    indices = {}
    for task, size in sizes.items():
        indices[task] = torch.arange(start, start + size)
        start += size
    return TaskBatches(indices, batch, seed=options.pop("seed", 0), **options)


def shares(batches: TaskBatches, steps: int) -> list[float]:
    counts = Counter(torch.cat([batches.at(step)[2] for step in range(steps)]).tolist())
    return [counts[t] / (steps * batches.batch_size) for t in range(len(batches.tasks))]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.5, 0.3, 0.195, 0.005]),
        (0.0, [0.25] * 4),
        (0.5, [22.36 / 55.88, 17.32 / 55.88, 13.96 / 55.88, 2.236 / 55.88]),
    ],
)
def test_shares_over_a_cycle(temperature: float, expected: list[float]) -> None:
    found = shares(batches_of(temperature=temperature), CYCLE // 32)
    assert found == pytest.approx(expected, abs=0.001)


def test_every_batch_is_mixed_in_nearly_the_shares() -> None:
    batches = batches_of(batch=100)
    for step in range(50):
        counts = torch.bincount(batches.at(step)[2], minlength=4).tolist()
        assert counts == pytest.approx([50, 30, 19.5, 0.5], abs=2)


def test_a_tiny_task_has_a_slot_a_cycle() -> None:
    batches = batches_of({"big": 1_000_000, "tiny": 1, "other": 2})
    assert batches.counts == [CYCLE - 2, 1, 1]


def test_two_tasks_by_hand() -> None:
    batches = batches_of({"a": 3, "b": 1}, batch=8)
    assert batches.at(0)[2].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert batches.at(0)[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 20),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_image_of_a_task_once_an_epoch(sizes: list[int], batch: int, seed: int, temperature: float) -> None:
    named = {f"task {number}": size for number, size in enumerate(sizes)}
    batches = batches_of(named, batch, seed=seed, temperature=temperature)
    steps = -(-1000 // batch)  # several epochs of the largest tasks
    index, epoch, task = (torch.cat(parts) for parts in zip(*(batches.at(s) for s in range(steps)), strict=True))
    slots = batches.cycle[torch.arange(steps * batch) % len(batches.cycle)]
    for number, name in enumerate(named):
        own, epochs = index[task == number], epoch[task == number]
        assert len(own) == int((slots == number).sum())
        for whole in range(len(own) // named[name]):
            rows = own[whole * named[name] : (whole + 1) * named[name]]
            assert torch.equal(rows.sort().values, batches.indices[name])
            assert bool((epochs[whole * named[name] : (whole + 1) * named[name]] == whole).all())


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_one_global_batch(world_size: int) -> None:
    alone = batches_of(batch=16)
    parts = [batches_of(batch=16 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    for step in (0, 3, 70):
        for whole, together in zip(alone.at(step), zip(*(part.at(step) for part in parts), strict=True), strict=True):
            assert torch.equal(torch.cat(together), whole)


def test_a_step_is_a_pure_function_of_its_number() -> None:
    first, again = batches_of(), batches_of()
    later = [again.at(step) for step in (900, 3, 41)]
    for step, found in zip((900, 3, 41), later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.at(step), found, strict=True))
    assert not torch.equal(first.at(0)[0], batches_of(seed=1).at(0)[0])


def test_an_image_of_two_tasks_is_drawn_for_each() -> None:
    shared = TaskBatches({"a": torch.arange(10), "b": torch.arange(10)}, 20, seed=0)
    index, _, task = shared.at(0)
    for number in (0, 1):
        assert index[task == number].sort().values.tolist() == list(range(10))
    assert index[task == 0].tolist() != index[task == 1].tolist()


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"empty: \['b'\]"):
        TaskBatches({"a": torch.arange(3), "b": torch.arange(0)}, 8, seed=0)
    with pytest.raises(ValueError, match="need tasks"):
        TaskBatches({}, 8, seed=0)
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]; found 2"):
        batches_of(temperature=2.0)
