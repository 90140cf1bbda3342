"""Pictures of repairs: which images they show, what their titles say, and how views of images are compared."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.inference.pictures import _head, part_panel, repair_rows, telling_images
from vision_mtl.pretext.contrast import Contrast
from vision_mtl.pretext.decolorise import Decolorise
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Mixture


def test_only_views_of_other_images_count_as_nearer() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mixture = Mixture({"contrast": Contrast(views=3, view_size=8)})
    part, damaged = mixture.prepare_all("contrast", images, Keys(0, 0, torch.arange(4)))
    embedding = torch.eye(4).repeat_interleave(3, 0)  # each image's three views agree
    embedding[2] = torch.tensor([1.0, 0.1, 0.0, 0.0])  # and a third that agrees less is not counted
    embedding[4] = torch.tensor([1.0, 0.5, 0.0, 0.0])  # the second of image 1 is at image 0, and one of 2 near image 1
    embedding[8] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    panel = part_panel("views", part, damaged, embedding)
    assert panel.captions == ["found", "1 nearer", "found", "found"]
    assert [label for label, _ in panel.rows] == ["original", "one view", "another view"]
    assert [pictures.shape for _, pictures in panel.rows] == [(4, 16, 16, 3), (4, 8, 8, 3), (4, 8, 8, 3)]


def pool_of(images: np.ndarray, sources: list[str], of: list[int], clusters: list[int], labelled: list[bool]) -> Pool:
    """Return a pool of test images (N, H, W, C) uint8; image i is in source `of[i]`."""
    count = len(images)
    member = np.arange(len(sources)) == np.array(of)[:, None]
    return Pool(
        [images],
        [f"i{k}" for k in range(count)],
        [None] * count,
        sources,
        member,
        np.full(count, 2, np.int8),
        np.array(clusters),
        {"task": SimpleNamespace(labelled=np.array(labelled))},
        [],
        {},
    )


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_photographs_are_first_and_fill_the_columns_that_tasks_leave() -> None:
    of = [0] * 10 + [1] * 10 + [2] * 10  # a task, photographs, another task
    clusters = [*range(10), *[20, 21] * 5, *range(30, 40)]
    pool = pool_of(noise(30), ["folder/a", "images/p", "folder/b"], of, clusters, [i // 10 != 1 for i in range(30)])
    mixture = Mixture({"grid_mask": GridMask(grid=4)})
    chosen = telling_images(pool, mixture, "grid_mask", "test", 6).tolist()
    assert [of[image] for image in chosen] == [1, 1, 1, 1, 0, 2] and len(set(chosen)) == 6
    assert sorted(clusters[image] for image in chosen[:4]) == [20, 20, 21, 21], "each photograph in turn"
    assert telling_images(pool, mixture, "grid_mask", "test", 6).tolist() == chosen
    assert [of[image] for image in telling_images(pool, mixture, "grid_mask", "test", 1).tolist()] == [1]


def test_without_photographs_all_sources_have_columns_in_turn() -> None:
    pool = pool_of(noise(20), ["folder/a", "folder/b"], [0] * 10 + [1] * 10, list(range(20)), [True] * 20)
    chosen = telling_images(pool, Mixture({"grid_mask": GridMask(grid=4)}), "grid_mask", "test", 4).tolist()
    assert [image // 10 for image in chosen] == [0, 0, 1, 1]


def test_blank_cells_and_grey_photographs_are_not_shown() -> None:
    images = noise(12)
    images[:6] = 128  # nothing to repair
    pool = pool_of(images, ["images/p"], [0] * 12, list(range(12)), [False] * 12)
    chosen = telling_images(pool, Mixture({"grid_mask": GridMask(grid=4)}), "grid_mask", "test", 4).tolist()
    assert len(chosen) == 4 and min(chosen) >= 6
    images[6:] = images[6:, :, :, :1]  # grey
    images[0, :, :, 0] = 200
    assert telling_images(pool, Mixture({"d": Decolorise()}), "d", "test", 4).tolist() == [0]


def test_a_repair_has_five_rows() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    part, damaged = Mixture({"grid_mask": GridMask(grid=4)}).prepare_all(
        "grid_mask", images, Keys(0, 0, torch.arange(2))
    )
    labels = [label for label, _ in repair_rows(part, damaged, torch.zeros_like(images))]
    assert labels[:4] == ["original", "damaged", "repaired", "classic repair"] and len(labels) == 5


def test_titles_say_in_words_what_was_learned() -> None:
    score = {"value": 0.24, "low": 0.18, "high": 0.3, "n": 1000, "learned": True}
    assert _head("grid_mask", score, "test images", repairs=True) == (
        "Hidden pixels (grid_mask): learned",
        "24 % less squared error than the best rule without training "
        "(skill_learned +0.24, 95 % interval +0.18 to +0.30, on 1,000 test images)",
    )
    worse = {"value": -0.05, "low": None, "high": None, "n": 9, "learned": False}
    title, note = _head("rotation", worse, "training images", repairs=False)
    assert title == "rotation: too few clusters" and note.startswith("5 % more loss than") and "interval" not in note
    assert _head("blur", None, "test images", repairs=True) == ("blur", "")
