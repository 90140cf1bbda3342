"""Decides whether the labels of a picture agree: of one file under several names, and of copies with equal content.

One picture has one label of a task, one split and one group. A file may be listed several times (a link, `./x`, two
rows); equal labels are then one label, different ones are an error. Copies are different files, so different labels
are a warning, unless `data.same_content` says otherwise.
"""
# n items, N instances, p pairs

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal
from unicodedata import normalize

import numpy as np

from vision_mtl.data.findings import Finding, Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.source import Item
from vision_mtl.data.targets import Target

SHOWN = 3  # pairs given in a message
SameContent = Literal["warn", "error", "drop"]


def picture_numbers(items: Sequence[Item]) -> np.ndarray:
    """Return (n,) int64 that are equal for items that are one picture."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(key_of(item), len(known)) for item in items], np.int64)


def key_of(item: Item) -> Hashable:
    """Return what identifies an item's picture within its source, and across sources if it is a file."""
    return item.key or item.path or item.identity


def disagreeing(target: Target, picture: np.ndarray) -> np.ndarray:
    """Return (p, 2) int64: rows of equal `picture` (n,) and different labels; the first is the picture's first row."""
    rows = np.flatnonzero(target.labelled)
    if len(np.unique(picture[rows])) == len(rows):
        return np.zeros((0, 2), np.int64)
    order = rows[np.argsort(picture[rows], kind="stable")]
    is_first = np.append(True, np.diff(picture[order]) != 0)
    first = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    pairs = np.stack([first, order], 1)[~is_first]
    a, b = target.values[pairs[:, 0]], target.values[pairs[:, 1]]
    if target.masks is None:
        return pairs[(a != b).reshape(len(pairs), -1).any(1)]
    masks = target.masks
    return pairs[[not np.array_equal(masks[i], masks[j]) for i, j in zip(a, b, strict=True)]]


def label_conflict(name: str, target: Target, items: Sequence[Item], picture: np.ndarray) -> Finding | None:
    """Return an error if items that are one `picture` (n,) have different labels of task `name`, else None."""
    pairs = disagreeing(target, picture)
    if not len(pairs):
        return None
    count = len(np.unique(picture[pairs[:, 0]]))
    return Finding(
        "error",
        f"task {name!r}: {_images(count)} listed more than once, with different labels: the same file is "
        f"{_shown(target, items, pairs)}.",
        "Keep one label for each picture: remove the wrong links, rows or files.",
        count,
    )


def place_conflicts(source: str, items: Sequence[Item]) -> list[Finding]:
    """Return an error each for items that are one picture and have different splits, or different groups."""
    findings = []
    for what, values in (("split", [item.split for item in items]), ("group", [item.group for item in items])):
        first: dict[Hashable, int] = {}
        pairs = []
        for row, (item, value) in enumerate(zip(items, values, strict=True)):
            before = first.setdefault(key_of(item), row) if value is not None else row
            if values[before] != value:
                pairs.append((before, row))
        if pairs:
            i, j = pairs[0]
            text = (
                f"{source}: {_images(len(pairs))} listed more than once, in different {what}s: the same file is in "
                f"{values[i]!r} as {_name(items[i], items[j])} and in {values[j]!r} as {_name(items[j], items[i])}."
            )
            findings.append(Finding("error", text, f"A picture has one {what}.", len(pairs)))
    return findings


def check_same_content(
    mode: SameContent,
    targets: Mapping[str, Target],
    items: Sequence[Item],
    content: np.ndarray,
    findings: Findings,
) -> dict[str, Target]:
    """Return the labels of N instances, after a check that images with equal `content` (N,) have equal labels.

    If they have not, `mode` decides: a warning, an error, or a warning and no label for any of these images.
    """
    found = {}
    for name, target in targets.items():
        pairs = disagreeing(target, content)
        found[name] = target
        if not len(pairs):
            continue
        copies = np.isin(content, content[pairs[:, 0]]) & target.labelled
        count = int(copies.sum())
        text = (
            f"task {name!r}: {count} images have a copy (a file of equal content) with another label; for example, one "
            f"picture is {_shown(target, items, pairs)}."
        )
        advice = "Remove the wrong ones, or leave out all with --data.same_content drop."
        if mode == "error":
            findings.error(text, advice, count)
        elif mode == "warn":
            findings.warn(text, advice, count)
        else:
            findings.warn(text, f"All {count} are left out of the task.", count)
            found[name] = target.keep(~copies)
    return found


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _shown(target: Target, items: Sequence[Item], pairs: np.ndarray) -> str:
    """Return the labels and names of the first pairs: `'cat' as 'cat/1.png' and 'dog' as 'dog/1.png'`."""
    told = [
        f"{_label(target, i)} as {_name(items[i], items[j])} and {_label(target, j)} as {_name(items[j], items[i])}"
        for i, j in pairs[:SHOWN].tolist()
    ]
    return "; ".join(told) + ("; ..." if len(pairs) > SHOWN else "")


def _name(item: Item, other: Item) -> str:
    """Return an item's name in a message: as its source spells it, or its path if the other is spelled alike."""
    spelled = item.path is None or item.identity != other.identity
    mine, its = (item.identity, other.identity) if spelled else (str(item.path), str(other.path))
    looks_alike = mine != its and normalize("NFC", mine) == normalize("NFC", its)
    return ascii(mine) if looks_alike else repr(mine)


def _label(target: Target, row: int) -> str:
    described = label_kind(target.kind).describe(target.values[row], target.class_names)
    if not described:
        return "one mask"
    (value,) = described.values()
    return repr(" ".join(value) or "none") if isinstance(value, list) else repr(value)
