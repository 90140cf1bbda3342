"""Finds each image's mask file by its name.

Names are compared after Unicode normalisation (NFC), because file systems and archives store `é` in two ways.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.files import find_file, find_images
from vision_mtl.data.findings import Findings
from vision_mtl.data.source import Item

SHOWN = 5  # names given in a finding
STAR = "*"  # stands for the image's name in the pattern of masks
TRIED = 50  # images that the hint tries for one mask


@dataclass(frozen=True)
class MaskPlace:
    """A folder of masks, and the text before and after an image's name in the names of its masks."""

    folder: Path
    prefix: str = ""
    suffix: str = ""

    def inner(self, name: str) -> str | None:
        """Return the image's name in a mask file's name, without its suffix; None if the file is not a mask."""
        text, before, after = normal(name if "." in self.suffix else PurePath(name).stem), *map(normal, self.around)
        fits = len(text) > len(before + after) and text.startswith(before) and text.endswith(after)
        return text[len(before) : len(text) - len(after)] if fits else None

    def holds(self, path: Path) -> bool:
        """Return True if the file is one of the masks."""
        return path.is_relative_to(self.folder.resolve()) and self.inner(path.name) is not None

    @property
    def around(self) -> tuple[str, str]:
        """The text before and after the image's name."""
        return self.prefix, self.suffix

    @property
    def pattern(self) -> str:
        """The text of the option `masks`."""
        return str(self.folder / STAR.join(self.around) if any(self.around) else self.folder)


def mask_place(masks: str, base: Path) -> MaskPlace:
    """Return where option `masks` points: relative to the working directory, or else to `base`, the source's folder.

    Its last part may be a pattern, as in `masks/*_mask.png`. Raises `UserError` for a pattern with several stars.
    """
    path, prefix, suffix = Path(masks).expanduser(), "", ""
    if STAR in path.name:
        if path.name.count(STAR) > 1 or STAR in str(path.parent):
            raise UserError(
                f"masks {masks!r} may have one {STAR}, in its last part, which stands for the image's name."
            )
        prefix, _, suffix = path.name.partition(STAR)
        path = path.parent if path.parent != Path() else base  # a name alone means files beside the images
    return MaskPlace(path if path.is_dir() else base / path, prefix, suffix)


def match_masks(
    task: str, place: MaskPlace, items: Sequence[Item], findings: Findings
) -> tuple[list[Path | None], dict[str, int]]:
    """Return each item's mask file or None, and the numbers of unmatched masks and of images without one.

    A mask has the image's relative path or else its name, with or without the image's suffix, and in any case if no
    other fits. Ambiguous and missing ones are findings. Raises `UserError` if the folder or all masks are missing.
    """
    try:
        files = find_images(str(place.folder))
    except UserError as error:
        raise UserError(f"task {task!r}, masks: {error}") from error
    base = files.base
    relative = {file: PurePath(valid_text(name)) for file, name in zip(files.files, files.names, strict=True)}
    names = {file: place.inner(path.name) for file, path in relative.items()}
    masks = {file: (relative[file].parent / name).as_posix() for file, name in names.items() if name}
    if not masks:
        raise UserError(
            f"task {task!r}: none of the {len(files.files)} files in {str(base)!r} is named as {place.pattern!r}."
        )
    found: list[Path | None] = [None] * len(items)
    ambiguous: dict[str, list[Path]] = {}
    for of_mask, of_image, only_unused in WAYS:
        used = set(found)
        by_key: dict[str, list[Path]] = {}
        for file, name in masks.items():
            if not only_unused or file not in used:
                by_key.setdefault(of_mask(name), []).append(file)
        for row, item in enumerate(items):
            if found[row] is None and item.identity not in ambiguous:
                choice = by_key.get(of_image(item.identity), [])
                found[row] = choice[0] if len(choice) == 1 else None
                if len(choice) > 1:
                    ambiguous[item.identity] = choice
    _report_ambiguous(task, items, found, ambiguous, findings)
    claimed = {file for file in found if file is not None} | {file for files in ambiguous.values() for file in files}
    unmatched = [file for file in masks if file not in claimed]
    missing = [item for item, file in zip(items, found, strict=True) if file is None and item.identity not in ambiguous]
    unused = [relative[file].as_posix() for file in unmatched]
    _report_missing(task, MaskPlace(base, *place.around), unused, [i.identity for i in missing], len(items), findings)
    return found, {"unmatched_masks": len(unmatched), "images_without_mask": len(missing)}


def find_mask(base: Path, text: str) -> Path:
    """Return the mask file that a cell of a CSV file names, which may not exist."""
    name = text.replace("\\", "/")
    return find_file(base, name) or base / name


def normal(text: str) -> str:
    """Return the text in Unicode's composed form."""
    return unicodedata.normalize("NFC", text)


def _last(name: str) -> str:
    return normal(PurePath(name).name)


def _bare(name: str) -> str:
    return normal(PurePath(name).with_suffix("").as_posix())


def _stem(name: str) -> str:
    return normal(PurePath(name).stem)


# keys that a mask (without its suffix) and an image may share, the strictest first; True: only for masks without image
WAYS: tuple[tuple[Callable[[str], str], Callable[[str], str], bool], ...] = (
    (normal, _bare, False),
    (normal, normal, False),
    (_last, _stem, False),
    (_last, _last, False),
    (lambda name: _last(name).casefold(), lambda name: _stem(name).casefold(), True),
)


def _report_ambiguous(
    task: str,
    items: Sequence[Item],
    found: Sequence[Path | None],
    ambiguous: Mapping[str, Sequence[Path]],
    findings: Findings,
) -> None:
    if ambiguous:
        image, own = next(iter(ambiguous.items()))
        findings.error(
            f"task {task!r}: {image!r} has {len(own)} masks, {own[0]} and {own[1]}{_alike(ambiguous)}.",
            "Keep one mask for each image.",
            len(ambiguous),
        )
    users: dict[Path, list[str]] = {}
    for item, file in zip(items, found, strict=True):
        if file is not None:
            users.setdefault(file, []).append(item.identity)
    shared = {file: own for file, own in users.items() if len(own) > 1}
    if shared:
        file, images = next(iter(shared.items()))
        findings.error(
            f"task {task!r}: {file} is the mask of {images[0]!r} and {images[1]!r}{_alike(shared)}.",
            "Put masks into the same folders as their images, or name both unmistakably.",
            sum(map(len, shared.values())),
        )


def _report_missing(
    task: str, place: MaskPlace, unmatched: Sequence[str], missing: Sequence[str], count: int, findings: Findings
) -> None:
    hint = _naming_hint(place.folder, unmatched, missing)
    if hint and hint[1] <= count - len(missing):
        hint = None  # another pattern would match fewer masks than this one does
    renamed = f"{hint[1]} masks would match --tasks.{task}.masks '{hint[0]}'." if hint else ""
    names = ", ".join(unmatched[:SHOWN]) + (", ..." if len(unmatched) > SHOWN else "")
    if len(missing) == count:
        text = f"task {task!r}: none of the {len(unmatched)} masks in {place.pattern!r} has the name of an image"
        raise UserError(f"{text} ({names}). {renamed or 'A mask is called like its image, with any suffix.'}")
    if unmatched:
        findings.warn(
            f"task {task!r}: {len(unmatched)} masks belong to no image and are not used: {names}.",
            renamed or "Name each mask like its image, or remove it.",
            len(unmatched),
        )
    if missing:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        text = f"task {task!r}: {len(missing)} of {count} images have no mask, hence no label: {names}."
        (findings.warn if unmatched or 2 * len(missing) > count else findings.note)(text, images=len(missing))


def _naming_hint(folder: Path, masks: Sequence[str], images: Sequence[str]) -> tuple[str, int] | None:
    """Return the pattern by which most masks would match an image, and how many do; None if fewer than half do."""
    stems = {normal(PurePath(image).stem) for image in images}
    best: tuple[int, MaskPlace] = (0, MaskPlace(folder))
    for mask in masks[:3]:
        name = normal(PurePath(mask).name)
        inside = sorted((stem for stem in stems if stem in name), key=len, reverse=True)
        for stem in inside[:TRIED]:
            before, _, after = name.partition(stem)
            tried = MaskPlace(folder, before, after)
            hits = sum(tried.inner(normal(PurePath(one).name)) in stems for one in masks)
            best = max(best, (hits, tried), key=lambda pair: pair[0])
    return (best[1].pattern, best[0]) if 2 * best[0] >= min(len(masks), len(stems)) and best[0] else None


def _alike(cases: Mapping[Any, Any]) -> str:
    """Return how many cases there are besides the one that is named."""
    return f" (and {len(cases) - 1} cases more)" if len(cases) > 1 else ""
