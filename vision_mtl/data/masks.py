"""Mask files: the class of each pixel as a grey value or palette index, resized to the pool's size.

A mask is resized like its image (`fit`) by the nearest pixel, so that no new values appear. Orientation tags of masks
are ignored: a mask matches the image after its orientation is applied.
"""
# n items, M masks, H W pixels, V values

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import FORMATS, MAX_PIXELS
from vision_mtl.data.files import find_images
from vision_mtl.data.options import Task
from vision_mtl.data.resize import resize_mask
from vision_mtl.data.source import Item
from vision_mtl.data.store import Settings
from vision_mtl.data.targets import IGNORED, Target, class_names_of
from vision_mtl.data.threads import threads

MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's modes with one number per pixel
OUTSIDE = -1  # value of a padded border, before classes are numbered
MAX_CLASSES = 254  # the values of a byte, minus `IGNORED` and `OUTSIDE`
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


def masks_in_folder(name: str, folder: Path, items: Sequence[Item]) -> list[Path | None]:
    """Return each item's mask file: with its relative path below `folder`, or else with its stem; None if missing.

    Raises `UserError` if the folder is missing, if no item has a mask, or if a stem is ambiguous.
    """
    try:
        found_files = find_images(str(folder))
    except UserError as error:
        raise UserError(f"task {name!r}, masks: {error}") from error
    base, files = found_files.base, found_files.files
    by_path = {valid_text(file.relative_to(base).with_suffix("").as_posix()): file for file in files}
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(valid_text(file.stem), []).append(file)
    found: list[Path | None] = []
    users: dict[Path, str] = {}
    for item in items:
        path = PurePath(item.identity)
        exact = by_path.get(path.with_suffix("").as_posix())
        choice = [exact] if exact else by_stem.get(path.stem, [])
        if len(choice) > 1:
            raise UserError(f"task {name!r}: {item.identity!r} has {len(choice)} masks, {choice[0]} and {choice[1]}.")
        found.append(choice[0] if choice else None)
        if choice and users.setdefault(choice[0], item.identity) != item.identity:
            raise UserError(f"task {name!r}: {choice[0]} is the mask of {users[choice[0]]!r} and {item.identity!r}.")
    if not users:
        raise UserError(f"task {name!r}: none of the {len(files)} masks in {str(folder)!r} has the name of an image.")
    return found


def read_masks(
    name: str,
    task: Task,
    items: Sequence[Item],
    files: Sequence[Path | None],
    settings: Settings,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Target:
    """Return the dense target of the items' mask files, one row per item. Classes are the values found, sorted.

    A mask with only ignored pixels is no label. Raises `UserError` with the file that is missing, is not a mask, or
    does not have its image's aspect ratio.
    """
    pairs = [(item, file) for item, file in zip(items, files, strict=True) if file is not None]
    masks = np.empty((len(pairs), *settings.image_size), np.uint8)
    codes: dict[int, int] = {}  # value -> provisional number, in order of appearance

    def decode(pair: tuple[Item, Path]) -> tuple[np.ndarray, np.ndarray]:
        mask = resize_mask(_decode(name, *pair), settings.image_size, settings.fit, OUTSIDE)
        return np.unique(mask, return_inverse=True)

    with threads(num_workers) as pool:
        for row, (values, numbers) in enumerate(pool.map(decode, pairs)):
            table = [codes.setdefault(int(value), len(codes)) for value in values]
            if len(codes) > MAX_CLASSES + 2:
                raise UserError(
                    f"task {name!r}: the masks up to {pairs[row][1]} contain more than {MAX_CLASSES} values. "
                    "A mask has one number for each class; is this a photograph?"
                )
            masks[row] = np.array(table, np.uint8)[numbers].reshape(masks.shape[1:])
            if progress is not None:
                progress(row + 1, len(pairs))
    return _number_classes(name, task, masks, codes, np.array([file is not None for file in files]))


def _number_classes(name: str, task: Task, masks: np.ndarray, codes: dict[int, int], has_mask: np.ndarray) -> Target:
    """Return the target with provisional numbers replaced by classes, sorted by value, or by `IGNORED`."""
    class_names = class_names_of([str(value) for value in codes if value not in (OUTSIDE, task.ignore)])
    if not class_names:
        raise UserError(f"task {name!r}: its {len(masks)} masks contain only the ignored value {task.ignore}.")
    table = np.full(len(codes), IGNORED, np.uint8)
    for k, class_name in enumerate(class_names):
        table[codes[int(class_name)]] = k
    masks = table[masks]
    values = np.full(len(has_mask), -1, np.int64)
    values[has_mask] = np.where((masks != IGNORED).any((1, 2)), np.arange(len(masks)), -1)
    return Target(task.kind, class_names, values, masks)


def _decode(name: str, item: Item, file: Path) -> np.ndarray:
    """Return the values of a mask file as (H, W) int32."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels exceed {MAX_PIXELS:,}")
            if image.mode not in MODES or image.format == "JPEG":
                kind = "JPEG, which changes values" if image.format == "JPEG" else f"{image.format}, {image.mode}"
                raise UserError(
                    f"task {name!r}: the mask {str(file)!r} must be a grey or palette image with one number for each "
                    f"class, in a lossless format (PNG); found {kind}."
                )
            mask = np.asarray(image).astype(np.int32)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # as in decode.py
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise UserError(f"task {name!r}: the mask {str(file)!r} of {item.identity!r}: {reason}.") from error
    _check_shape(name, item, file, mask.shape)
    return mask


def _check_shape(name: str, item: Item, file: Path, found: tuple[int, int]) -> None:
    """Raise `UserError` if a mask's aspect ratio differs from its image's by more than rounding to a pixel."""
    if item.path is None:
        return
    with Image.open(item.path, formats=FORMATS) as image:
        width, height = image.size[::-1] if image.getexif().get(0x0112) in TURNED else image.size
    if abs(found[0] * width - found[1] * height) > max(height, width):
        raise UserError(
            f"task {name!r}: the mask {str(file)!r} has {found[0]} x {found[1]} pixels (height x width), "
            f"but its image {item.identity!r} has {height} x {width}, another aspect ratio."
        )
