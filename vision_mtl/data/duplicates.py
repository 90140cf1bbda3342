"""Near duplicates: a perceptual hash proposes pairs, pixels confirm them.

The hash is the difference hash (Krawetz, "Kind of like that", 2013): signs of horizontal and vertical steps of a tiny
grey image. A hash alone joins what merely has one layout (3,649 of 5,000 digits end up in one chain), so a pair counts
only if its pixels agree after a shift of brightness and contrast; images are joined to a representative, never in
chains; and images with different labels of one task are never joined.
"""
# N images, H W pixels, b bits

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import numpy as np

HASH_SIDE = 8  # 2 * 8 * 8 = 128 bits
MAX_DISTANCE = 16  # bits: re-encoding and slight crops of photographs change up to about a dozen
DETAIL_SIDE = 32  # pixels a side that are compared
MAX_RESIDUAL = 0.12  # norm of what is left after fitting one image to the other, as a share of the image's own contrast
FLAT = 4.0  # standard deviation in grey levels below which an image shows nothing to compare
BLOCK = 2048  # images compared at a time

Images = Sequence[np.ndarray] | np.ndarray  # N of (H, W, C) uint8


def near_duplicates(
    images: Images,
    labels: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """N images (H, W, C) uint8, task -> (N,) int64, -1 for none -> (N,) int64: each image's representative, or itself.

    A representative represents itself; every image's pixels are confirmed against its representative's.
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
    """(N, DETAIL_SIDE, DETAIL_SIDE) float32 in grey levels."""
    found = np.empty((len(images), DETAIL_SIDE, DETAIL_SIDE), np.float32)
    for number, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image.mean(2)
        found[number] = cv2.resize(grey.astype(np.float32), (DETAIL_SIDE, DETAIL_SIDE), interpolation=cv2.INTER_AREA)
    return found


def _hashes(grey: np.ndarray) -> np.ndarray:
    """(N, 16) uint8: 128 bits an image."""
    side = HASH_SIDE + 1
    tiny = np.stack([cv2.resize(g, (side, side), interpolation=cv2.INTER_AREA) for g in grey])
    across = tiny[:, :-1, 1:] > tiny[:, :-1, :-1]
    down = tiny[:, 1:, :-1] > tiny[:, :-1, :-1]
    return np.packbits(np.concatenate([across.reshape(len(tiny), -1), down.reshape(len(tiny), -1)], axis=1), axis=1)


def _details(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N, n) float32 of mean 0 and norm 1, (N,) contrast in grey levels)."""
    flat = grey.reshape(len(grey), DETAIL_SIDE**2)
    centred = flat - flat.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    return centred / np.maximum(norm, 1e-6)[:, None], norm / DETAIL_SIDE


def _agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) bool. With both of norm 1, the residual of the best fit is sqrt(1 - correlation^2)."""
    correlation = np.einsum("nd,nd->n", first, second)
    return (correlation > 0) & (1 - correlation**2 <= MAX_RESIDUAL**2)


def _proposals(
    bits: np.ndarray, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs within MAX_DISTANCE bits, block by block: Hamming distances by one matrix product of +-1 bits."""
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
    """The pairs of `rows` (n, b) with `columns` (m, b), numbered from `start` and `other` on; the second is the later.

    Tile by tile, so that the memory does not grow with the number of images.
    """
    agreeing = rows @ columns.T  # (n, m): b less twice the distance
    first, second = np.nonzero(agreeing >= rows.shape[1] - 2 * MAX_DISTANCE)
    later = second + other > first + start
    return first[later] + start, second[later] + other
