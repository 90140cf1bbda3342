"""Reads a dense task's masks: the class of each pixel as a number, palette index or colour, at the pool's size.

A mask is resized like its image (`fit`) by the nearest pixel, so that no new values appear. Orientation tags are
applied, as to images: a mask matches the image as it is shown.
"""
# n items, M masks, H W pixels, V values

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import FORMATS
from vision_mtl.data.findings import Findings
from vision_mtl.data.mask_checks import FOREGROUND, SHOWN, MaskSet
from vision_mtl.data.mask_decoding import COLOUR, BadMask, MaskFile, decode_mask
from vision_mtl.data.options import Task
from vision_mtl.data.resize import resize_mask
from vision_mtl.data.source import Item
from vision_mtl.data.store import Settings
from vision_mtl.data.targets import IGNORED, Target, class_names_of
from vision_mtl.data.threads import threads

OUTSIDE = -1  # value of a padded border, before classes are numbered
MAX_CLASSES = 254  # the values of a byte, minus `IGNORED` and `OUTSIDE`
ORIENTATION, UPRIGHT, TURNED = 0x0112, 1, (5, 6, 7, 8)  # EXIF tag; orientations that swap height and width


@dataclass(frozen=True)
class _Read:
    """A mask as it is kept: values (V,) and the number (H, W) of each pixel's value, or why it cannot be used."""

    mask: MaskFile | None = None
    values: np.ndarray = field(default_factory=lambda: np.array([OUTSIDE]))
    numbers: np.ndarray | None = None
    fault: str = ""
    misfit: str = ""
    is_unsure: bool = False  # the image's orientation tag turns it, the mask has none, and its shape fits both ways


def read_masks(
    name: str,
    task: Task,
    items: Sequence[Item],
    files: Sequence[Path | None],
    settings: Settings,
    findings: Findings,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Target:
    """Return the dense target of the items' mask files, one row per item. Classes are the values found, sorted.

    A mask with only ignored pixels is no label. Masks that are missing, are none or have another aspect ratio than
    their image are errors among the `findings`, and so are values that were hardly meant (`MaskSet.report`). Raises
    `UserError` if no class is left.
    """
    pairs = [(item, file) for item, file in zip(items, files, strict=True) if file is not None]
    masks = np.empty((len(pairs), *settings.image_size), np.uint8)
    codes: dict[int, int] = {OUTSIDE: 0}  # value -> provisional number, in order of appearance
    whole, found = MaskSet(), []
    with threads(num_workers) as pool:
        for row, read in enumerate(pool.map(lambda pair: _read(pair[0], pair[1], settings), pairs)):
            if read.mask is not None:
                whole.add(pairs[row][1], read.mask)
            table = [codes.setdefault(int(value), len(codes)) for value in read.values]
            if len(codes) > MAX_CLASSES + 2:
                raise UserError(
                    f"task {name!r}: the masks up to {pairs[row][1]} contain more than {MAX_CLASSES} values. "
                    "A mask has one number or colour for each class; is this a photograph?"
                )
            masks[row] = 0 if read.numbers is None else np.array(table, np.uint8)[read.numbers]
            found.append((*pairs[row], read.fault, read.misfit, read.is_unsure))
            if progress is not None:
                progress(row + 1, len(pairs))
    _report_files(name, found, findings)
    return _number_classes(name, task, masks, codes, np.array([file is not None for file in files]), whole, findings)


def _read(item: Item, file: Path, settings: Settings) -> _Read:
    """Return a mask file at the pool's size."""
    try:
        mask = decode_mask(file)
    except BadMask as error:
        return _Read(fault=str(error))
    misfit, is_unsure = _compare(item, mask)
    resized = resize_mask(mask.values, settings.image_size, settings.fit, OUTSIDE)
    values, numbers = np.unique(resized, return_inverse=True)
    small = MaskFile(np.empty(0), mask.counts, mask.between, mask.patches, mask.top, mask.palette, mask.is_turned)
    return _Read(small, values, numbers.reshape(resized.shape).astype(np.uint16), "", misfit, is_unsure)


def _compare(item: Item, mask: MaskFile) -> tuple[str, bool]:
    """Return how a mask's aspect ratio differs from its image's by more than rounding to a pixel, "" if it does not.

    Also return True if the image's orientation tag turns it in a way that the mask's shape cannot confirm.
    """
    if item.path is None:
        return "", False
    try:
        with Image.open(item.path, formats=FORMATS) as image:
            orientation = image.getexif().get(ORIENTATION, UPRIGHT)
            width, height = image.size[::-1] if orientation in TURNED else image.size
    except Exception:  # an image that another library decodes: its shape is not known here
        return "", False
    rows, columns = mask.values.shape
    slack = max(height, width)
    if abs(rows * width - columns * height) <= slack:
        sure = orientation in TURNED and abs(rows * height - columns * width) > slack
        return "", orientation != UPRIGHT and not sure and not mask.is_turned
    advice = ", another aspect ratio"
    if abs(rows * height - columns * width) <= slack:
        tag = " by its EXIF orientation" if orientation in TURNED else ""
        advice = f": one of them is turned{tag} and the other is not"
    return (
        f"has {rows} x {columns} pixels (height x width), but its image {item.identity!r} has "
        f"{height} x {width}{advice}"
    ), False


def _report_files(name: str, found: Sequence[tuple[Item, Path, str, str, bool]], findings: Findings) -> None:
    """Add the masks that cannot be used, and those that may be turned."""
    faults = [f"the mask {str(file)!r} of {item.identity!r} {fault}" for item, file, fault, _, _ in found if fault]
    misfits = [f"the mask {str(file)!r} {misfit}" for _, file, _, misfit, _ in found if misfit]
    unsure = [item.identity for item, *_, is_unsure in found if is_unsure]
    for texts, end, advice in (
        (faults, "", ""),
        (misfits, ".", "A mask may have another size than its image, but must show the same part of it."),
    ):
        if texts:
            count = f"{len(texts)} masks cannot be used. For example, " if len(texts) > 1 else ""
            findings.error(f"task {name!r}: {count}{texts[0]}{end}", advice, len(texts))
    if unsure:
        findings.warn(
            f"task {name!r}: {len(unsure)} images are turned or mirrored by their EXIF orientation, and their masks "
            f"have no such tag: {', '.join(unsure[:SHOWN])}.",
            "Masks are read as drawn on the image as viewers show it; check that.",
            len(unsure),
        )


def _number_classes(
    name: str,
    task: Task,
    masks: np.ndarray,
    codes: dict[int, int],
    has_mask: np.ndarray,
    whole: MaskSet,
    findings: Findings,
) -> Target:
    """Return the target with provisional numbers replaced by classes, sorted by value, or by `IGNORED`."""
    values = [value for value in codes if value != OUTSIDE]
    ignored = _ignored(name, task, {whole.class_of(value) for value in values}, findings)
    whole.report(name, ignored, values, findings)
    kept = [value for value in values if whole.class_of(value) != ignored]
    class_names = class_names_of([whole.name(value) for value in kept])
    if not class_names and not findings.of("error"):
        raise UserError(f"task {name!r}: its {len(masks)} masks contain only the ignored value {task.ignore}.")
    table = np.full(len(codes), IGNORED, np.uint8)
    for value in kept:
        table[codes[value]] = class_names.index(whole.name(value))
    masks = table[masks]
    rows = np.full(len(has_mask), -1, np.int64)
    rows[has_mask] = np.where((masks != IGNORED).any((1, 2)), np.arange(len(masks)), -1)
    return Target(task.kind, class_names, rows, masks, details=_shares(class_names, masks))


def _ignored(name: str, task: Task, values: set[int], findings: Findings) -> int | None:
    """Return the value that is no class, if any."""
    if isinstance(task.ignore, str):
        colour = int(task.ignore[1:], 16)
        grey = colour & 255 if colour == (colour & 255) * 0x010101 else None
        return COLOUR + colour if COLOUR + colour in values else grey
    if task.ignore != FOREGROUND or FOREGROUND not in values or len(values) > 2:
        return task.ignore
    if len(values) == 2:
        (other,) = values - {FOREGROUND}
        findings.note(
            f"task {name!r}: the masks hold {other} and 255, so 255 is a class; beside more values it would be ignored."
        )
    return None


def _shares(class_names: Sequence[str], masks: np.ndarray) -> dict[str, object]:
    """Return each class's share of the pixels that have one, and the share of pixels without, at the pool's size."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for mask in masks:
        counts += np.bincount(mask.ravel(), minlength=IGNORED + 1)
    labelled = max(int(counts[:IGNORED].sum()), 1)
    shares = {name: round(float(counts[k] / labelled), 9) for k, name in enumerate(class_names)}
    return {"pixel_shares": shares, "unlabelled_pixels": round(float(counts[IGNORED] / max(masks.size, 1)), 9)}
