"""Words in a table's cells that may mean no label, and classes that differ only in spelling.

A class must not vanish silently, and a blank must not become a class silently: so each such word is counted in a
warning, which tells what to type.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from vision_mtl.data.findings import Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task
from vision_mtl.data.targets import NO_CLASS, Target, is_number

BLANK_WORDS = ("nan", "n/a", "#n/a", "<na>", "null")  # in any case: written by programs for a missing value
DOUBTFUL_WORDS = ("none", "na", "-", "?")  # in any case: a missing value, or a class ("no damage", Namibia)
SHOWN = 5  # groups of classes named in a warning
MANY = 10  # classes from which on mostly different numbers are suspicious


def without_blank_words(task: Task, texts: Sequence[str | None]) -> list[str | None]:
    """Return a task's cells of a table, with None for those that mean no label (option `missing`)."""
    blank = _blank_words(task)
    return [None if text is None or text.casefold() in blank else text for text in texts]


def word_warnings(name: str, task: Task, texts: Sequence[str | None], findings: Findings) -> None:
    """Add a warning for cells with words that may mean no label, unless `tasks.NAME.missing` tells which ones do."""
    if task.missing is not None:
        return
    counts = Counter(text for text in texts if text is not None)
    blank = {text: n for text, n in counts.items() if text.casefold() in _blank_words(task)}
    doubtful = {text: n for text, n in counts.items() if text.casefold() in DOUBTFUL_WORDS and text not in blank}
    kind = label_kind(task.kind)
    if not kind.one_class:
        doubtful.pop(NO_CLASS, None)  # of a kind with several classes it is a label
    option = f"--tasks.{name}.missing"
    if blank:
        findings.warn(
            f"task {name!r}: {sum(blank.values())} cells hold {_listed(blank)}, which is read as no label.",
            f"If it is a class, give {option} '[]'." if kind.has_classes else "",
            sum(blank.values()),
        )
    if doubtful:
        words = " ".join(map(shlex.quote, dict.fromkeys([*blank, *doubtful])))
        findings.warn(
            f"task {name!r}: {sum(doubtful.values())} cells hold {_listed(doubtful)}, which is read as a class.",
            f"If it means no label, give {option} {words}; if it is a class, {option} '[]'.",
            sum(doubtful.values()),
        )


def spelling_warnings(targets: Mapping[str, Target], findings: Findings) -> None:
    """Add a warning for classes that differ only in spelling or are mostly different numbers, and an error for a class
    without a name."""
    for name, target in targets.items():
        if not label_kind(target.kind).classifies_images:
            continue
        counts = np.bincount(target.occurrences()[1], minlength=len(target.class_names)).tolist()
        if len(counts) >= MANY and 2 * len(counts) > sum(counts) and all(map(is_number, target.class_names)):
            findings.warn(
                f"task {name!r}: {len(counts)} of {sum(counts)} labels are different numbers, and each is a class.",
                f"To predict a number, give --tasks.{name}.kind regression.",
                sum(counts),
            )
        groups: dict[str, list[tuple[str, int]]] = {}
        for class_name, count in zip(target.class_names, counts, strict=True):
            groups.setdefault(_key(class_name), []).append((class_name, count))
        if nameless := groups.pop("", None):
            findings.error(
                f"task {name!r}: the class {nameless[0][0]!r} has a blank name.",
                "Give its folder or its label a name.",
                sum(count for _, count in nameless),
            )
        doubled = [group for group in groups.values() if len(group) > 1]
        if doubled:
            shown = "; ".join(_alike(group) for group in doubled[:SHOWN])
            more = f"; and {len(doubled) - SHOWN} more" if len(doubled) > SHOWN else ""
            findings.warn(
                f"task {name!r}: classes differ only in spelling: {shown}{more}.",
                "They are separate classes: give each class one spelling.",
                sum(count for group in doubled for _, count in group),
            )


def _blank_words(task: Task) -> set[str]:
    """Return the words that mean no label, in lower case."""
    if task.missing is not None:
        return {word.casefold() for word in task.missing}
    return {*BLANK_WORDS, *(() if label_kind(task.kind).has_classes else DOUBTFUL_WORDS)}  # no number either


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{text!r} ({count})" for text, count in counts.items())


def _key(class_name: str) -> str:
    """Return a text that is equal for classes that differ in case, spaces, Unicode form, or as a number's text only."""
    plain = unicodedata.normalize("NFKC", class_name).casefold()
    visible = "".join(character for character in plain if unicodedata.category(character) != "Cf")
    text = " ".join(visible.split())
    return repr(float(text)) if is_number(text) else text


def _alike(group: Sequence[tuple[str, int]]) -> str:
    """Return the classes with their numbers of images; in ASCII if they would look the same."""
    looks = {unicodedata.normalize("NFC", class_name) for class_name, _ in group}
    show = repr if len(looks) == len(group) else ascii
    return " and ".join(f"{show(class_name)} ({count} images)" for class_name, count in group)
