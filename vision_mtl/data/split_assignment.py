"""The split of every instance: official and drawn splits, and checks for leaks, duplicates and missing classes."""
# N instances

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vision_mtl.data.conflicts import key_of
from vision_mtl.data.findings import Findings
from vision_mtl.data.instances import Instances
from vision_mtl.data.label_leaks import label_leak
from vision_mtl.data.one_value import ADVICE, one_value
from vision_mtl.data.options import Data, Task
from vision_mtl.data.proportional import Margins, margins, proportional_splits
from vision_mtl.data.source import SPLITS, Item, Split, movable_name
from vision_mtl.data.splits import (
    DROPPED,
    TEST,
    TRAIN,
    UNSET,
    VAL,
    check_ratios,
    draw_units,
    independent_splits,
    return_classes_to_train,
)
from vision_mtl.data.targets import Target

SHOWN = 5  # names given in a message


def draw_splits(data: Data, instances: Instances, unit: np.ndarray, targets: Mapping[str, Target]) -> np.ndarray:
    """Return the (N,) int8 splits of all instances; `unit` (N,) numbers those that must stay together.

    A unit that is test in one source is test in all of them; next comes val, then train. A split that a source gives an
    image takes precedence over drawn splits, one from a file of splits over both. Raises `UserError` for the ratios.
    """
    check_ratios(data.val_ratio, data.test_ratio)
    kept = np.full(len(instances), UNSET, np.int8)
    for source, row in zip(instances.loaded, instances.rows, strict=True):
        np.maximum.at(kept, row, split_numbers([item.kept for item in source.items]))
    draw = _draw_independent if data.split_rule == "independent" else _draw_proportional
    splits, drawn = draw(data, instances, unit, kept)
    occurrences = [targets[name].occurrences() for name in sorted(targets)]
    return return_classes_to_train(splits, unit, drawn, _smallest_names(instances), occurrences, data.split_seed)


def split_numbers(splits: Sequence[Split | None]) -> np.ndarray:
    """Return (n,) int8: the number of each split, `UNSET` for None."""
    return np.array([UNSET if split is None else SPLITS.index(split) for split in splits], np.int8)


def _draw_proportional(
    data: Data, instances: Instances, unit: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N,) splits by the proportional rule, and which were drawn, (N,) bool; others are in `kept` (N,).

    A source without official test images gives `test_ratio` of its images, one without official val images `val_ratio`:
    both of the images that are drawn. A unit in several sources has the smallest share of them.
    """
    count = len(instances)
    given, is_train = np.full(count, UNSET, np.int8), np.zeros(count, bool)
    shares = np.ones((unit.max() + 1, len(SPLITS)))
    for source, row in zip(instances.loaded, instances.rows, strict=True):
        official = split_numbers([item.split for item in source.items])
        has_test, has_val = (official == TEST).any(), (official == VAL).any()
        np.minimum.at(shares[:, TEST], unit[row], 0.0 if has_test else data.test_ratio)
        np.minimum.at(shares[:, VAL], unit[row], 0.0 if has_val else data.val_ratio)
        beside = np.array([item.beside is not None for item in source.items])
        sure = (official == TEST) | (official == VAL) | ((official == TRAIN) & has_test & has_val) | beside
        official[beside] = TRAIN
        np.maximum.at(given, row[sure], official[sure])
        is_train[row[official == TRAIN]] = True
    given = np.where(kept == UNSET, given, kept)
    of_unit = np.full(unit.max() + 1, UNSET, np.int8)
    np.maximum.at(of_unit, unit, given)
    splits = np.where(given != UNSET, given, np.where(is_train, TRAIN, of_unit[unit])).astype(np.int8)
    free = of_unit[unit] == UNSET
    if free.any():
        ids, draws = draw_units(_smallest_names(instances), unit, free, data.split_seed)
        number = np.where(free, np.searchsorted(ids, unit), -1)
        shares[:, TRAIN] = 1 - shares[:, VAL] - shares[:, TEST]
        fixed = np.where(free, UNSET, splits)
        splits[free] = proportional_splits(number, draws, shares[ids], _margins(instances), fixed)[number[free]]
    return splits, free


def _margins(instances: Instances) -> Margins:
    """Return the sums that stay in proportion: sources, sorted by the names that draws depend on, and their columns."""
    names = [movable_name(source.name) for source in instances.loaded]
    order = sorted(range(len(names)), key=lambda number: names[number])
    columns = [column for n in order for column in label_columns(instances.loaded[n].items, instances.rows[n])]
    return margins(instances.members()[:, order], columns)


def label_columns(items: Sequence[Item], rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (n,) instances and (n,) class numbers of each label column of a source whose values are classes.

    They are if a value stands for two images on average; those of other columns are numbers or names. `rows` are the
    instances of the items.
    """
    values: dict[str, tuple[list[int], list[str]]] = {}
    for row, item in zip(rows.tolist(), items, strict=True):
        for column, value in item.labels.items():
            images, texts = values.setdefault(column, ([], []))
            images.append(row)
            texts.append(value)
    found = []
    for _, (images, texts) in sorted(values.items()):
        classes = {text: number for number, text in enumerate(sorted(set(texts)))}
        if 2 * len(classes) <= len(texts):
            found.append((np.array(images), np.array([classes[text] for text in texts])))
    return found


def _draw_independent(
    data: Data, instances: Instances, unit: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N,) splits by the independent rule, and which were drawn, (N,) bool; others are in `kept` (N,)."""
    count = len(instances)
    given, free = np.full(count, UNSET, np.int8), np.full(count, UNSET, np.int8)
    held_out = kept != UNSET  # by a source or a file, not by a draw
    for source, row, names in zip(instances.loaded, instances.rows, instances.names(), strict=True):
        official = split_numbers([item.split for item in source.items])
        split = independent_splits(
            names, unit[row], official, val_ratio=data.val_ratio, test_ratio=data.test_ratio, seed=data.split_seed
        )
        split[[item.beside is not None for item in source.items]] = TRAIN
        np.maximum.at(given, row, np.where(official == UNSET, UNSET, split).astype(np.int8))
        np.maximum.at(free, row, np.where(official == UNSET, split, UNSET).astype(np.int8))
        held_out[row[(official == TEST) | (official == VAL)]] = True
    splits = np.where(given == UNSET, free, given)
    of_unit, kept_of_unit = np.full((2, unit.max() + 1), UNSET, np.int8)
    np.maximum.at(of_unit, unit, splits)
    np.maximum.at(kept_of_unit, unit, kept)
    of_unit = np.where(kept_of_unit == UNSET, of_unit, kept_of_unit)
    splits = np.where(kept != UNSET, kept, np.where(given == UNSET, of_unit[unit], splits)).astype(np.int8)
    return splits, ~held_out


def _smallest_names(instances: Instances) -> list[str]:
    """Return each instance's name; of an instance in several sources, the alphabetically first one."""
    found = [""] * len(instances)
    for row, names in zip(instances.rows, instances.names(), strict=True):
        for instance, name in zip(row, names, strict=True):
            found[instance] = min(found[instance], name) if found[instance] else name
    return found


def drop_leaks(split: np.ndarray, exact: np.ndarray, instances: Instances, findings: Findings) -> np.ndarray:
    """Return the (N,) splits without copies across splits: test keeps an image over val, val over train.

    Official splits may hold exact duplicates in several splits. The lower copies become `DROPPED`, and a warning is
    added. `split` (N,) are the splits, `exact` (N,) numbers that are equal for exact duplicates.
    """
    _, content = np.unique(exact, return_inverse=True)
    highest = np.full(content.max() + 1, TRAIN, np.int8)
    np.maximum.at(highest, content, split)
    leaks = split < highest[content]
    if leaks.any():
        kept = {int(content[n]): n for n in np.flatnonzero(split == highest[content]).tolist()}
        pairs = [(n, kept[int(content[n])]) for n in np.flatnonzero(leaks)[:SHOWN].tolist()]
        shown = ", ".join(f"{instances.item(a).identity} (of {instances.item(b).identity})" for a, b in pairs)
        count = int(leaks.sum())
        findings.warn(
            f"left out {count} image{'s' if count > 1 else ''} with an exact duplicate in a held-out split: {shown}.",
            images=count,
        )
    return np.where(leaks, DROPPED, split).astype(np.int8)


def count_near_duplicates(
    near: np.ndarray,
    exact: np.ndarray,
    groups: np.ndarray,
    split: np.ndarray,
    instances: Instances,
    findings: Findings,
) -> int:
    """Return the number of near duplicates that are neither exact duplicates nor in the same group.

    Adds a warning if some are in different splits. All arrays are (N,): representatives, contents, groups and splits.
    """
    pairs = np.flatnonzero((near != np.arange(len(near))) & (exact != exact[near]) & (groups != groups[near]))
    across = pairs[(split[pairs] != split[near[pairs]]) & (split[pairs] != DROPPED)]
    if len(across):
        shown = ", ".join(f"{instances.item(n).identity} and {instances.item(near[n]).identity}" for n in across[:3])
        findings.warn(
            f"{len(across)} near duplicates are in different splits ({shown});",
            "--data.keep_near_duplicates_together puts them in the same one.",
            len(across),
        )
    return len(pairs)


def copy_warnings(
    unlabelled: Sequence[str],
    split: np.ndarray,
    targets: Mapping[str, Target],
    instances: Instances,
    findings: Findings,
) -> None:
    """Add a warning for each unlabelled source that holds copies of validation or test images of a task.

    A copy is another file with the same content. `split` holds the (N,) splits.
    """
    labelled = np.zeros(len(split), bool)
    for target in targets.values():
        labelled |= target.labelled
    evaluated = labelled & ((split == TEST) | (split == VAL))
    files: dict[int, set[object]] = {}  # content -> its files in the sources of tasks
    for source, row in zip(instances.loaded, instances.rows, strict=True):
        for i in np.flatnonzero(evaluated[row]) if source.name not in unlabelled else ():
            files.setdefault(int(source.hashes[i]), set()).add(key_of(source.items[i]))
    for source in (s for s in instances.loaded if s.name in unlabelled):
        pairs = zip(source.items, source.hashes.tolist(), strict=True)
        copies = [i.identity for i, h in pairs if h in files and (i.path is None or key_of(i) not in files[h])]
        if copies:
            findings.warn(
                f"{len(copies)} images of {source.name} are copies of test or validation images of a task "
                f"({', '.join(copies[:SHOWN])}): they are kept out of training.",
                images=len(copies),
            )


def label_leak_warnings(
    tasks: Mapping[str, Task], targets: Mapping[str, Target], instances: Instances, findings: Findings
) -> None:
    """Add a warning for each task whose labels only count its files or folders."""
    numbers = {source.name: number for number, source in enumerate(instances.loaded)}
    for name, task in tasks.items():
        number = numbers[task.source]
        target, row = targets[name], instances.rows[number]
        identities = [item.identity for item in instances.loaded[number].items]
        own = Target(target.kind, target.class_names, target.values[row], target.masks)
        if warning := label_leak(name, own, identities):
            findings.warn(warning, images=int(own.labelled.sum()))


def check_tasks(
    targets: Mapping[str, Target], split: np.ndarray, findings: Findings, advice: Mapping[str, str] | None = None
) -> None:
    """Add an error for a task without labelled train or test images, with one value, or held-out classes only.

    `split` holds the (N,) splits; `advice` tells for some tasks what to do about a single value.
    """
    advice = advice or {}
    for task, target in targets.items():
        for needed in (TRAIN, TEST):
            if not (target.labelled & (split == needed)).any():
                findings.error(
                    f"task {task!r} has no labelled image for {SPLITS[needed]} "
                    f"(of {int(target.labelled.sum())} labelled ones).",
                    f"Give it more images, another --data.split_seed, or its own split (--tasks.{task}.split).",
                )
        single = one_value(task, target, split == TRAIN, advice.get(task, ADVICE))
        if single and single.text not in {finding.text for finding in findings.all}:
            findings.add([single])
        rows, classes = target.occurrences()
        for held_out, word, add in ((VAL, "validation", findings.warn), (TEST, "test", findings.error)):
            unseen = np.setdiff1d(classes[split[rows] == held_out], classes[split[rows] == TRAIN])
            if len(unseen):
                shown = ", ".join(target.class_names[k] for k in unseen[:SHOWN])
                add(
                    f"task {task!r}: {len(unseen)} of {len(target.class_names)} classes are in the {word} images and "
                    f"not in the training ones: {shown}.",
                    "Give each of them a training image, or blank their labels.",
                    len(unseen),
                )
