"""Trivial, learnable or hopeless: the verdict on every damage, over any set of images.

- trivial: the best rule's error is below 1 % of the target's variance, or below one grey level of 255: nothing is left
  to learn;
- learnable: the network's repair is better than the best rule's; the one-sided test at 2.5 %, which is the lower end of
  a 95 % interval, survives Holm's correction over all verdicts of its table;
- hopeless: neither.

The test is Student's on the clusters' totals of (rule's error - network's error): skill is above 0 where their mean is.
Its tail is needed because Holm over hundreds of damages asks for p-values that no affordable bootstrap resolves.
"""
# n images, D damages, G clusters, R rules

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from vision_mtl.core.sums import divide
from vision_mtl.discovery.measure import DamageErrors
from vision_mtl.evaluation.families import holm
from vision_mtl.evaluation.scores import Bootstrap, Score

TRIVIAL_SHARE = 0.01  # of the target's variance
FLOOR = (1 / 255) ** 2  # mean squared error of one grey level: below it, repairs cannot be told from the truth
LEVEL = 0.025  # one-sided, so that it matches the lower end of the 95 % interval
Kind = Literal["trivial", "learnable", "hopeless"]


@dataclass(frozen=True)
class Verdict:
    """One damage on one set of images. `gain_p` is the test's p-value, `holm_p` the same after Holm's correction."""

    pretext: str
    damage: str
    skill: Score
    untrained: float  # skill of the all-zero prediction
    reference: str  # the rule of least total error on the set
    trivial: bool
    gain_p: float
    holm_p: float = 1.0

    @property
    def kind(self) -> Kind:
        """The verdict."""
        if self.trivial:
            return "trivial"
        return "learnable" if self.holm_p < LEVEL and self.skill.value > 0 else "hopeless"

    def to_json(self) -> dict[str, Any]:
        """The form that `result.json` holds."""
        return {"kind": self.kind, "skill": self.skill.to_json(), "reference": self.reference}


def judge(errors: DamageErrors, clusters: np.ndarray, rows: np.ndarray | None = None) -> list[Verdict]:
    """A verdict for each damage on the images `rows` (n,) bool (all by default), before Holm; empty without an image.

    `clusters` (n,) are those of `errors.index`.
    """
    rows = np.ones(len(errors.index), bool) if rows is None else rows
    if not rows.any():
        return []
    names, reference = best_rules(errors, rows)
    model, untrained, group = errors.model[rows], errors.untrained[rows], clusters[rows]
    skills = skill_scores(model, reference, group)
    before = 1 - divide(untrained.sum(0), reference.sum(0))
    trivial = is_trivial(reference, errors.first[rows], errors.second[rows])
    gains = gain_p_values(reference - model, group)
    return [
        Verdict(errors.pretext, damage, skills[k], float(np.nan_to_num(before[k])), names[k], trivial[k], gains[k])
        for k, damage in enumerate(errors.damages)
    ]


def judge_whole(errors: DamageErrors, clusters: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Verdict | None:
    """One verdict on several damages `columns` (D,) bool at once, each weighed by its share; None without an image.

    Every damage is held against its own best rule; the rule named is that of the most damages.
    """
    if not rows.any():
        return None
    names, reference = best_rules(errors, rows)
    weights = np.where(columns, errors.shares, 0) / errors.shares[columns].sum()
    named = [name for name, there in zip(names, columns, strict=True) if there]
    parts = [values @ weights for values in (errors.model[rows], errors.untrained[rows], reference)]
    model, untrained, reference = (part[:, None] for part in parts)
    first, second = (np.tensordot(m[rows], weights, (1, 0))[:, None] for m in (errors.first, errors.second))
    return Verdict(
        errors.pretext,
        "all",
        skill_scores(model, reference, clusters[rows])[0],
        float(np.nan_to_num(1 - divide(untrained.sum(), reference.sum()))),
        max(dict.fromkeys(named), key=named.count),
        is_trivial(reference, first, second)[0],
        gain_p_values(reference - model, clusters[rows])[0],
    )


def best_rules(errors: DamageErrors, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Each damage's rule of least total error on the images `rows`, and that rule's errors (n, D).

    Candidates are the rules and the untrained prediction, which is a rule without learning too.
    """
    candidates = {**errors.rules, "untrained": errors.untrained}
    if "chance" in errors.rules:  # a question: the untrained answer is chance itself
        candidates = errors.rules
    names = list(candidates)
    totals = np.stack([candidates[name][rows].sum(0) for name in names])  # (R, D)
    best = totals.argmin(0)
    chosen = np.stack([candidates[names[rule]][rows, damage] for damage, rule in enumerate(best)], 1)
    return [names[rule] for rule in best], chosen


def skill_scores(model: np.ndarray, reference: np.ndarray, clusters: np.ndarray) -> list[Score]:
    """`1 - sum(model) / sum(reference)` of each column of (n, D), with intervals over clusters (n,).

    Where the reference makes no error the skill is 0 and has no interval.
    """
    count = model.shape[1]
    bootstrap = Bootstrap(np.concatenate([model, reference], 1), clusters)
    found = []
    for k in range(count):
        if bootstrap.sums[count + k] == 0:
            found.append(Score(0.0, None, None, bootstrap.n, bootstrap.num_clusters))
            continue
        found.append(bootstrap.score(partial(_skill, model=k, reference=count + k)))
    return found


def _skill(sums: np.ndarray, model: int, reference: int) -> np.ndarray:
    return 1 - divide(sums[..., model], sums[..., reference])


def is_trivial(reference: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[bool]:
    """(D,) whether the reference's mean error (n, D) leaves nothing to learn; `first`, `second` (n, D, C) moments."""
    variance = (second.mean(0) - first.mean(0) ** 2).mean(-1)
    error = reference.mean(0)
    return [bool(e < FLOOR or e < TRIVIAL_SHARE * v) for e, v in zip(error, variance, strict=True)]


def gain_p_values(gain: np.ndarray, clusters: np.ndarray) -> list[float]:
    """One-sided p-values (D,) that the mean of the clusters' total gains (n, D) is not above 0; 1 for one cluster."""
    group = np.unique(clusters, return_inverse=True)[1]
    totals = np.zeros((group.max() + 1, gain.shape[1]))
    np.add.at(totals, group, gain)
    count = len(totals)
    if count < 2:
        return [1.0] * gain.shape[1]
    error = totals.std(0, ddof=1) / np.sqrt(count)
    # totals that do not vary at all: no doubt is left about their sign
    statistic = np.where(error > 0, divide(totals.mean(0), error), np.where(totals.mean(0) > 0, np.inf, -np.inf))
    return student.sf(statistic, count - 1).tolist()


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one table after Holm's correction over those that are not trivial."""
    open_ones = [i for i, verdict in enumerate(verdicts) if not verdict.trivial]
    adjusted = dict(zip(open_ones, holm(np.array([verdicts[i].gain_p for i in open_ones])).tolist(), strict=True))
    return [replace(verdict, holm_p=adjusted.get(i, 1.0)) for i, verdict in enumerate(verdicts)]
