"""The verdict on every damage over a set of images: trivial, learnable or hopeless.

- trivial: the error of the best rule is below 1 % of the target's variance or below one grey level of 255, so nothing
  is left to learn;
- learnable: the network repairs better than the best rule. A one-sided test at 2.5 %, which corresponds to the lower
  end of a 95 % interval, must be significant after Holm's correction over all verdicts of the table;
- hopeless: neither.

The test is Student's t-test on the clusters' totals of (rule's error - network's error); skill is above 0 where their
mean is. Totals with a long tail of losses, of which few clusters show little, would pass too often: a negative skewness
is corrected for. A bootstrap cannot replace the test: Holm over hundreds of damages needs p-values that would take too
many resamples.
"""
# n images, D damages, G clusters, R rules

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from vision_mtl.core.sums import divide
from vision_mtl.discovery.measure import DamageErrors
from vision_mtl.evaluation.families import holm
from vision_mtl.evaluation.jackknife import SKEW_FACTOR, cluster_sums, transformed
from vision_mtl.evaluation.scores import Score, ratio_skill

TRIVIAL_SHARE = 0.01  # of the target's variance
FLOOR = (1 / 255) ** 2  # mean squared error of one grey level, below which a repair equals the truth in 8 bits
LEVEL = 0.025  # one-sided: the lower end of the 95 % interval
Kind = Literal["trivial", "learnable", "hopeless"]


@dataclass(frozen=True)
class Verdict:
    """The result for one damage on one set of images; `holm_p` is the p-value `gain_p` after Holm's correction."""

    pretext: str
    damage: str
    skill: Score
    untrained: float  # skill of the all-zero prediction
    reference: str  # the rule with the smallest total error on the set
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
    """Return a verdict for each damage on the images `rows` (n,) bool (default: all), before Holm's correction.

    `clusters` (n,) are those of `errors.index`. The list is empty if `rows` selects no image.
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
    """Return one verdict on the damages `columns` (D,) bool together, weighted by their shares; None without an image.

    Every damage is compared with its own best rule; `reference` names the most frequent of these.
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
    """Return for each damage the rule with the smallest total error on the images `rows`, and its errors (n, D).

    The untrained prediction counts as a rule, since it needs no learning.
    """
    candidates = {**errors.rules, "untrained": errors.untrained}
    if "chance" in errors.rules:  # without a repair, the untrained prediction is the chance prediction
        candidates = errors.rules
    names = list(candidates)
    totals = np.stack([candidates[name][rows].sum(0) for name in names])  # (R, D)
    best = totals.argmin(0)
    chosen = np.stack([candidates[names[rule]][rows, damage] for damage, rule in enumerate(best)], 1)
    return [names[rule] for rule in best], chosen


def skill_scores(model: np.ndarray, reference: np.ndarray, clusters: np.ndarray) -> list[Score]:
    """`1 - sum(model) / sum(reference)` of each column of (n, D), with intervals over clusters (n,).

    Where the error of the reference is 0, the skill is 0 and has no interval.
    """
    none = Score(0.0, None, None, len(clusters), len(np.unique(clusters)))
    return [
        ratio_skill(own, rule, clusters) if rule.any() else none for own, rule in zip(model.T, reference.T, strict=True)
    ]


def is_trivial(reference: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[bool]:
    """(D,) True where the reference's error (n, D) leaves nothing to learn; `first`, `second` (n, D, C) are moments."""
    variance = (second.mean(0) - first.mean(0) ** 2).mean(-1)
    error = reference.mean(0)
    return [bool(e < FLOOR or e < TRIVIAL_SHARE * v) for e, v in zip(error, variance, strict=True)]


def gain_p_values(gain: np.ndarray, clusters: np.ndarray) -> list[float]:
    """(D,) one-sided p-values for a mean of the clusters' total gains (n, D) above 0; 1 below three clusters."""
    totals = cluster_sums(gain, np.unique(clusters, return_inverse=True)[1])  # (G, D)
    count = len(totals)
    if count < 3:
        return [1.0] * gain.shape[1]
    mean, deviation = totals.mean(0), totals.std(0)
    error = deviation / np.sqrt(count - 1)
    # totals without any variation have a certain sign
    statistic = np.where(error > 0, divide(mean, error), np.where(mean > 0, np.inf, -np.inf))
    skewness = divide(((totals - mean) ** 3).mean(0), deviation**3) * np.sqrt(count * (count - 1)) / (count - 2)
    corrected = transformed(statistic, SKEW_FACTOR * np.minimum(np.nan_to_num(skewness), 0), count)
    return student.sf(np.minimum(statistic, corrected), count - 1).tolist()


def correct_verdicts(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts of one table after Holm's correction over those that are not trivial."""
    tested = [i for i, verdict in enumerate(verdicts) if not verdict.trivial]
    adjusted = dict(zip(tested, holm(np.array([verdicts[i].gain_p for i in tested])).tolist(), strict=True))
    return [replace(verdict, holm_p=adjusted.get(i, 1.0)) for i, verdict in enumerate(verdicts)]
