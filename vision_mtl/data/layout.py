"""Recognises how the folders of `folder/PATH` name splits and classes.

| images lie in | read as |
|---|---|
| CLASS/ | classes |
| train/CLASS/, test/CLASS/, val/CLASS/ (`SPLIT_WORDS`, in any case) | splits and classes; others are apart |
| ONLY/train/CLASS/, where everything lies in the folder ONLY | the same |
| CLASS/train/, CLASS/test/ | classes and splits |
| cat/, dog/, test/, with the images directly in test/ | classes, with a warning |
Names that may mean a split as well as a class are `unclear`: the folders give no split, and their label is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vision_mtl.data.findings import Finding
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.skipped import some
from vision_mtl.data.source import Split

# folders beside `train` alone that are no class; beside two splits, every other folder is none
EXTRA_WORDS = ("unlabeled", "unlabelled", "unlabel", "extra", "unsupervised", "unsup")

Folders = tuple[str, ...]  # the folders that hold an image, below PATH


@dataclass(frozen=True)
class Place:
    """What the folders of an image say. `beside`: it lies beside the split folders, in the folder of that name."""

    split: Split | None = None
    label: str | None = None
    beside: str | None = None


@dataclass
class Layout:
    """How folders are read. `depth` folders come before those of the splits or classes."""

    depth: int = 0
    splits: dict[str, Split] = field(default_factory=dict)  # folder -> split
    class_first: bool = False  # CLASS/SPLIT instead of SPLIT/CLASS
    findings: list[Finding] = field(default_factory=list)
    unclear: Finding | None = None

    def place(self, folders: Folders) -> Place:
        """Return the split and class of an image in `folders`."""
        inner = folders[self.depth :]
        if self.class_first:
            return Place(self.splits[inner[1]] if len(inner) > 1 else None, inner[0] if inner else None)
        if not self.splits:
            return Place(None, inner[0] if inner else None)
        if not inner or inner[0] not in self.splits:
            return Place("train", None, "/".join(folders[: self.depth + 1]) or ".")
        return Place(self.splits[inner[0]], inner[1] if len(inner) > 1 else None)


def read_layout(where: str, images: Counter[Folders]) -> Layout:
    """Return the layout of a source `where`; `images` counts the images in each folder."""
    depth = _shared_depth(images)
    inner = Counter({folders[depth:]: count for folders, count in images.items()})
    words = _words(folders[0] for folders in inner if folders)
    if words:
        return _with_splits(where, depth, inner, words)
    return _class_first(where, images) or Layout()


def _words(names: Iterable[str]) -> dict[str, Split]:
    return {name: SPLIT_WORDS[name.lower()] for name in sorted(set(names)) if name.lower() in SPLIT_WORDS}


def _shared_depth(images: Iterable[Folders]) -> int:
    """Return the number of folders that hold everything, up to the first one that is called like a split."""
    first, *rest = images
    depth = len(first)
    for folders in rest:
        depth = min(depth, len(folders))
        while first[:depth] != folders[:depth]:
            depth -= 1
    return next((n for n, name in enumerate(first[:depth]) if name.lower() in SPLIT_WORDS), depth)


def _with_splits(where: str, depth: int, inner: Counter[Folders], words: dict[str, Split]) -> Layout:
    """Return the layout of folders of which some are called like splits."""
    others = sorted({folders[0] for folders in inner if folders} - words.keys())
    flat = [name for name in words if inner[(name,)]]  # their images lie directly in them, as those of a class do
    deep = sorted({folders[0] for folders in inner if len(folders) > 1} & words.keys())
    splits = set(words.values())
    named = f"{some(words)} beside {some(others)}"
    certain = not others or (deep and "train" in splits and (len(splits) > 1 or _all_extra(others)))
    if certain:
        findings = _split_findings(where, depth, inner, words, flat if deep else [])
        return Layout(depth, words, findings=findings, unclear=_useless_splits(where, words, deep))
    if len(words) == 1 and not deep:
        (word,) = words
        text = (
            f"{where}: the folder {word!r} is read as a class like {some(others)}, because images lie directly in it."
        )
        advice = "If it is a split, sort its images into a folder for each class, and the others into train/."
        return Layout(findings=[Finding("warning", text, advice, inner[(word,)])])
    text = f"{where}: its folders {named} may be splits or classes. They give no split."
    advice = (
        f"If they are splits, keep only train, val and test in this folder and move {some(others)} elsewhere; if they "
        f"are classes, rename {some(words)}; or say it by the path: --tasks.NAME.label_from '([^/]+)/[^/]+$' (the "
        "image's folder is its class) and --tasks.NAME.split."
    )
    return Layout(unclear=Finding("error", text, advice, inner.total()))


def _all_extra(names: Iterable[str]) -> bool:
    return all(name.lower() in EXTRA_WORDS for name in names)


def _split_findings(
    where: str, depth: int, inner: Counter[Folders], words: dict[str, Split], flat: Sequence[str]
) -> list[Finding]:
    """Return what is noteworthy about folders that are read as splits."""
    found = []
    if depth:
        found.append(Finding("note", f"{where}: the splits are read from the folder that holds them, {some(words)}."))
    if set(words.values()) == {"train"}:
        text = f"{where}: the folder {some(words)} is the training split; validation and test images are drawn from it."
        found.append(Finding("note", text))
    if flat:
        count = sum(inner[(name,)] for name in flat)
        text = f"{where}: {count} images lie directly in {some(flat)}, outside the class folders, and have no label."
        found.append(Finding("warning", text, "Move them into class folders.", count))
    return found


def _useless_splits(where: str, words: dict[str, Split], deep: Sequence[str]) -> Finding | None:
    """Return an error for splits without a training folder, or for a split without class folders beside one with."""
    if "train" not in words.values():
        text = f"{where}: {some(words)} are held-out splits, and there is no folder train."
        return Finding("error", text, "Give the folder of one of them as the source to draw splits from its images.")
    bare = sorted(set(words.values()) - {words[name] for name in deep})
    if deep and bare:
        names = some(name for name, split in words.items() if split in bare)
        text = f"{where}: the images in {names} lie in no class folder, so they have no label."
        advice = "Sort them into class folders; or give the folder train as the source, to draw splits from its images."
        return Finding("error", text, advice)
    return None


def _class_first(where: str, images: Counter[Folders]) -> Layout | None:
    """Return the layout CLASS/SPLIT/image, or None if the folders inside the classes are not called like splits."""
    words = _words(folders[1] for folders in images if len(folders) > 1)
    if not words:
        return None
    outside = sum(count for folders, count in images.items() if len(folders) < 2 or folders[1] not in words)
    deeper = any(len(folders) > 2 for folders in images if len(folders) > 1 and folders[1] in words)
    if not outside and not deeper:
        return Layout(splits=words, class_first=True)
    text = f"{where}: folders called {some(words)} lie inside other folders, "
    text += f"but {outside} images are outside them." if outside else "with further folders inside them."
    text += " They give no split."
    advice = (
        "Write the splits as train/CLASS and test/CLASS, or rename the folders if they are no splits; or say it by the "
        "path: --tasks.NAME.label_from '([^/]+)/[^/]+$' (the image's folder is its class) and --tasks.NAME.split."
    )
    severe = len(set(words.values())) > 1 or not outside
    finding = Finding("error" if severe else "warning", text, advice, images.total())
    return Layout(unclear=finding) if severe else Layout(findings=[finding])
