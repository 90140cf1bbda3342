"""What training added to the features and the repairs, in sentences and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

VERDICTS = ("better", "worse", "undecided")
NONE = ": none yet"
TITLES = {"untrained": "before", "trained": "after", "difference": "after minus before", "majority": "majority"}


def feature_sentence(features: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one sentence: the features of which tasks are better than before training; "" without a comparison.

    >>> feature_sentence({"a": {"verdict": "better", "before": "random weights"}, "b": {"verdict": "undecided"}})
    'Features of a are better than before training (random weights); b: undecided.'
    """
    groups = {verdict: [t for t, own in features.items() if own.get("verdict") == verdict] for verdict in VERDICTS}
    found = [(verdict, tasks) for verdict, tasks in groups.items() if tasks]
    if not found:
        return ""
    before = next(own["before"] for own in features.values() if "before" in own)
    (verdict, tasks), *others = found
    said = "not clearly better or worse" if verdict == "undecided" else verdict
    rest = "".join(f"; {listed(tasks)}: {verdict}" for verdict, tasks in others)
    return f"Features of {listed(tasks)} are {said} than before training ({before}){rest}."


def feature_table(features: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row for each task: the probe's score before and after training, and the paired difference."""
    table = Table("task", box=SIMPLE_HEAD, pad_edge=False)
    compared = [part for part in TITLES if any(part in own for own in features.values())]
    for part in compared:
        table.add_column(TITLES[part], justify="right", no_wrap=True)
    for task, own in features.items():
        name = task if own["metric"] == "accuracy" else f"{task} ({own['metric']})"
        cells = [score_cell(own.get(part), *((True, "+") if part == "difference" else (False,))) for part in compared]
        table.add_row(name, *cells)
    return table


def repair_sentence(learned: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return one sentence: which repairs were learned on which images, from `skill_learned_by_source`.

    >>> repair_sentence({"bundled/digits": {"grid_mask": {"learned": True}, "downsample": {"learned": False}}})
    'Repairs better than every rule that needs no training: grid_mask of bundled/digits; downsample: none yet.'
    """
    pretexts = list(dict.fromkeys(name for scores in learned.values() for name in scores))
    parts = []
    for pretext in pretexts:
        scored = [source for source, scores in learned.items() if pretext in scores]
        names = [source for source in scored if learned[source][pretext].get("learned")]
        everywhere = len(names) == len(scored) > 1
        parts.append(f"{pretext} of {'all images' if everywhere else listed(names)}" if names else f"{pretext}{NONE}")
    if all(part.endswith(NONE) for part in parts):
        none = "No repair is better yet than the best rule that needs no training: repairs need more images."
        return none if parts else ""
    parts.sort(key=lambda part: part.endswith(NONE))
    return f"Repairs better than every rule that needs no training: {'; '.join(parts)}."


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def score_cell(score: Mapping[str, Any] | None, with_interval: bool, sign: str = "") -> str:
    """Return a score as a table shows it, with its interval if it has one; "" for None."""
    if score is None:
        return ""
    shown = f"{score['value']:{sign}.3f}"
    interval = with_interval and score["low"] is not None
    return shown + (f" ({score['low']:{sign}.3f} to {score['high']:{sign}.3f})" if interval else "")
