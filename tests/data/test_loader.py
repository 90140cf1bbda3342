"""Batches of several tasks: all labels of an image, masks that follow their image, reproducible steps."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import loader as module
from vision_mtl.data.loader import LabelledBatch, TaskLoader, labelled_rows
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.task_batches import TaskBatches

COUNT = 30


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Task]:
    """Three tasks with overlapping labels on 30 images of bright cells on black, and masks of the bright cells."""
    folder = tmp_path / "set"
    (folder / "masks").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["file,letter,mask,size,split"]
    for number in range(COUNT):
        cells = np.kron(random.integers(0, 2, (4, 4), np.uint8), np.ones((8, 8), np.uint8))
        cells[number % 32, number // 32] ^= 1  # all different
        Image.fromarray(np.stack([cells * 200] * 3, axis=-1)).save(folder / f"{number:02d}.png")
        Image.fromarray(cells).save(folder / "masks" / f"{number:02d}.png")
        letter = "ab"[number % 2] if number < 20 else ""
        split = "test" if number % 5 == 0 else "train"
        mask = f"masks/{number:02d}.png" if number >= 10 else ""
        lines.append(f"{number:02d}.png,{letter},{mask},{number / 2 if number % 3 else ''},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    source = f"csv/{folder}/labels.csv"
    return {
        "letter": Task(source=source, label="letter", split="split", augment="none"),
        "seen": Task(source=source, label="mask", split="split", kind="dense", augment="mirror"),
        "size": Task(source=source, label="size", split="split", kind="regression", augment="light"),
    }


@pytest.fixture
def pool(tasks: dict[str, Task], tmp_path: Path) -> Pool:
    data = Data(root=str(tmp_path), val_ratio=0.0)
    return build_pool(data, tasks, image_size=(32, 32))


def batches_of(pool: Pool, tasks: dict[str, Task], batch: int = 16) -> TaskBatches:
    return TaskBatches({task: pool.indices("train", task=task) for task in tasks}, batch, seed=3)


def same(first: LabelledBatch, second: LabelledBatch) -> bool:
    assert first.targets.keys() == second.targets.keys()
    pairs = [(first.indices, second.indices), (first.epochs, second.epochs), (first.images, second.images)]
    for task in first.targets:
        pairs += zip(first.targets[task], second.targets[task], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_has_all_labels_of_an_image(pool: Pool, tasks: dict[str, Task]) -> None:
    batches = batches_of(pool, tasks)
    with TaskLoader(pool, tasks, batches, seed=0) as loader:
        for step in range(4):
            batch = loader.at(step)
            assert torch.equal(batch.indices, batches.at(step)[0]) and torch.equal(batch.epochs, batches.at(step)[1])
            numbers = [int(pool.identities[i][-6:-4]) for i in batch.indices]
            letters, sizes = batch.targets["letter"], batch.targets["size"]
            assert letters[0].tolist() == [row for row, n in enumerate(numbers) if n < 20]
            assert letters[1].tolist() == [n % 2 for n in numbers if n < 20]
            assert sizes[0].tolist() == [row for row, n in enumerate(numbers) if n % 3]
            offset, scale = pool.targets["size"].unit
            assert sizes[1].double().numpy() * scale + offset == pytest.approx([n / 2 for n in numbers if n % 3])
            assert batch.targets["seen"][0].tolist() == [row for row, n in enumerate(numbers) if n >= 10]


def test_the_policy_of_the_drawn_task_augments_image_and_masks(pool: Pool, tasks: dict[str, Task]) -> None:
    batches = batches_of(pool, tasks, 64)
    with TaskLoader(pool, tasks, batches, seed=0) as loader:
        batch = loader.at(0)
    drawn_for = batches.at(0)[2]
    unchanged = (batch.images == pool.gather(batch.indices)).flatten(1).all(1)
    assert torch.equal(unchanged, drawn_for == 0)
    rows, masks = batch.targets["seen"]
    assert {0, 1, 2} == set(drawn_for[rows].tolist())
    for image, mask in zip(batch.images[rows], masks, strict=True):
        bright = image[0] > image.max() / 2
        assert (bright == (mask == 1))[mask >= 0].float().mean() > 0.9
    own = pool.targets["seen"].gather(batch.indices[rows])
    changed = [not torch.equal(mask, before) for mask, before in zip(masks, own, strict=True)]
    assert changed == (drawn_for[rows] != 0).tolist()


def test_a_step_does_not_depend_on_order_or_threads(pool: Pool, tasks: dict[str, Task]) -> None:
    batches = batches_of(pool, tasks)
    with TaskLoader(pool, tasks, batches, seed=0, num_workers=1) as first:
        straight = [first.at(step) for step in range(5)]
    with TaskLoader(pool, tasks, batches, seed=0, num_workers=3) as other:
        assert all(same(other.at(step), straight[step]) for step in (4, 0, 1, 1, 3))
    with TaskLoader(pool, tasks, batches, seed=1) as reseeded:
        assert not torch.equal(reseeded.at(0).images, straight[0].images)
        assert torch.equal(reseeded.at(0).indices, straight[0].indices)


def test_the_pool_is_not_changed(pool: Pool, tasks: dict[str, Task]) -> None:
    pixels, masks = pool.blocks[0].copy(), pool.targets["seen"].masks.copy()
    with TaskLoader(pool, tasks, batches_of(pool, tasks), seed=0) as loader:
        loader.at(0), loader.at(1)
    assert np.array_equal(pool.blocks[0], pixels) and np.array_equal(pool.targets["seen"].masks, masks)


def test_a_task_without_a_label_in_the_batch_is_absent(pool: Pool, tasks: dict[str, Task]) -> None:
    number = next(i for i, identity in enumerate(pool.identities) if identity.endswith("00.png"))
    assert list(labelled_rows(pool, tasks, torch.tensor([number]))) == ["letter"]


def test_only_the_next_batch_is_prepared(pool: Pool, tasks: dict[str, Task]) -> None:
    batches = batches_of(pool, tasks)
    asked = []
    at = batches.at
    batches.at = lambda step: asked.append(step) or at(step)
    with TaskLoader(pool, tasks, batches, seed=0) as loader:
        loader.at(0)
        time.sleep(0.3)
        assert asked == [0, 1]
        loader.at(1)
        time.sleep(0.3)
        assert asked == [0, 1, 2]


def test_what_a_thread_raises_reaches_the_caller(
    pool: Pool, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TaskLoader(pool, tasks, batches_of(pool, tasks), seed=0) as loader:

        def fail(*_: object) -> None:
            raise UserError("a policy that fails late")

        monkeypatch.setattr(module.Augmenter, "apply", fail)
        with pytest.raises(UserError, match="fails late"):
            loader.at(0)
        with pytest.raises(UserError, match="fails late"):
            loader.at(9)


def test_a_bad_policy_is_named_before_the_first_batch(pool: Pool, tasks: dict[str, Task]) -> None:
    crop = {"__class_fullname__": "CenterCrop", "height": 8, "width": 8, "p": 1.0}
    bad = {**tasks, "size": Task(source=tasks["size"].source, kind="regression", augment={"transform": crop})}
    with pytest.raises(UserError, match=r"task 'size'.*shape \(8, 8, 3\)"):
        TaskLoader(pool, bad, batches_of(pool, tasks), seed=0)
