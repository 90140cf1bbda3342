"""Near duplicates: a perceptual hash proposes pairs, and their pixels confirm them.

The hash is the difference hash (Krawetz, "Kind of like that", 2013): the signs of horizontal and vertical steps in a
tiny grey image. The hash alone joins images that only share a layout (3,649 of 5,000 digits form one chain). So a pair
counts only if its pixels agree up to brightness and contrast; images are joined to a representative, never in chains;
and images with different labels of the same task are never joined.
"""
# N images, H W pixels, b bits

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import numpy as np

from vision_mtl.data.depth import BYTE_LEVELS, is_deep

HASH_SIDE = 8  # 2 * 8 * 8 = 128 bits
MAX_DISTANCE = 16  # bits: re-encoding and slight crops of photographs change up to about a dozen
DETAIL_SIDE = 32  # height and width of the compared images, in pixels
MAX_RESIDUAL = 0.12  # norm of the residual after fitting one image to the other, relative to the image's contrast
FLAT = 4.0  # standard deviation in grey levels below which an image has too little detail to compare
BLOCK = 2048  # images compared at a time

Images = Sequence[np.ndarray] | np.ndarray  # N of (H, W, C), in 8 bits or 16-bit levels


def near_duplicates(
    images: Images,
    labels: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return (N,) int64: the representative of each of N images (H, W, C); an image without one is its own.

    `labels` maps a task to (N,) int64 labels, -1 for none. The pixels of an image are compared with those of its
    representative.
    """
    if len(images) == 0:
        return np.arange(0)
    grey = _small_greys(images)
    bits = _hashes(grey)
    detail, contrast = _details(grey)
    representative, leads = np.arange(len(images)), np.zeros(len(images), bool)
    for first, second in _proposals(bits, progress):  # first < second, in order of first
        confirmed = _agree(detail[first], detail[second]) & (contrast[first] >= FLAT) & (contrast[second] >= FLAT)
        for values in labels.values():
            both = (values[first] >= 0) & (values[second] >= 0)
            confirmed &= ~both | (values[first] == values[second])
        for i, j in zip(first[confirmed], second[confirmed], strict=True):
            if representative[i] == i and representative[j] == j and not leads[j]:
                representative[j], leads[i] = i, True
    return representative


def _small_greys(images: Images) -> np.ndarray:
    """Return (N, DETAIL_SIDE, DETAIL_SIDE) float32 in grey levels."""
    found = np.empty((len(images), DETAIL_SIDE, DETAIL_SIDE), np.float32)
    for number, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image.mean(2)
        small = cv2.resize(grey.astype(np.float32), (DETAIL_SIDE, DETAIL_SIDE), interpolation=cv2.INTER_AREA)
        found[number] = small / BYTE_LEVELS if is_deep(image) else small
    return found


def _hashes(grey: np.ndarray) -> np.ndarray:
    """Return (N, 16) uint8: the 128-bit hash of each image."""
    side = HASH_SIDE + 1
    tiny = np.stack([cv2.resize(g, (side, side), interpolation=cv2.INTER_AREA) for g in grey])
    across = tiny[:, :-1, 1:] > tiny[:, :-1, :-1]
    down = tiny[:, 1:, :-1] > tiny[:, :-1, :-1]
    return np.packbits(np.concatenate([across.reshape(len(tiny), -1), down.reshape(len(tiny), -1)], axis=1), axis=1)


def _details(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ((N, n) float32 with mean 0 and norm 1, (N,) contrast in grey levels)."""
    flat = grey.reshape(len(grey), DETAIL_SIDE**2)
    centred = flat - flat.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    return centred / np.maximum(norm, 1e-6)[:, None], norm / DETAIL_SIDE


def _agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (n,) bool: pairs that agree. For vectors of norm 1 the residual is sqrt(1 - correlation^2)."""
    correlation = np.einsum("nd,nd->n", first, second)
    return (correlation > 0) & (1 - correlation**2 <= MAX_RESIDUAL**2)


def _proposals(
    bits: np.ndarray, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs within MAX_DISTANCE bits, block by block; the Hamming distance is a matrix product of +-1 bits."""
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1  # (N, b)
    count = len(signs)
    for start in range(0, count, BLOCK):
        found = [
            _pairs(signs[start : start + BLOCK], signs[other : other + BLOCK], start, other)
            for other in range(start, count, BLOCK)
        ]
        first, second = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(first, kind="stable")
        yield first[order], second[order]
        if progress is not None:
            progress(min(start + BLOCK, count), count)


def _pairs(rows: np.ndarray, columns: np.ndarray, start: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of `rows` (n, b) and `columns` (m, b) with first < second, numbered from `start` and `other`.

    Working in tiles keeps the memory independent of the number of images.
    """
    agreeing = rows @ columns.T  # (n, m): b minus twice the distance
    first, second = np.nonzero(agreeing >= rows.shape[1] - 2 * MAX_DISTANCE)
    later = second + other > first + start
    return first[later] + start, second[later] + other
