"""The verdict on every damage over a set of images: trivial, learnable or hopeless.

The reference of an image is the best rule for its source: of the classic repair, the zero answer, the network's start,
the pretext's other rules and those fitted on training images, the one with the smallest total error on all scored
images of that source under that damage. `skill_learned = 1 - sum(error) / sum(reference's error)`.

- trivial: the error of the reference is below 1 % of the target's variance or below one grey level of 255, so nothing
  is left to learn;
- learnable: the network repairs better than the reference. The interval of the skill must be above 0, and a one-sided
  test at 2.5 %, which corresponds to the lower end of a 95 % interval, must be significant after Holm's correction over
  all verdicts of the table. Where there are too few clusters for an interval, nothing is learnable;
- hopeless: neither.

The test is Student's t-test on the clusters' totals of (rule's error - network's error); skill is above 0 where their
mean is. Totals with a long tail of losses, of which few clusters show little, would pass too often: a negative skewness
is corrected for. A bootstrap cannot replace the test: Holm over hundreds of damages needs p-values that would take too
many resamples.
"""
# n images, D damages, G clusters, R rules

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    references: Mapping[str, str]  # source -> the rule with the smallest total error on its images
    trivial: bool
    gain_p: float
    holm_p: float = 1.0

    @property
    def kind(self) -> Kind:
        """The verdict."""
        if self.trivial:
            return "trivial"
        above = self.skill.low is not None and self.skill.low > 0
        return "learnable" if above and self.holm_p < LEVEL else "hopeless"

    @property
    def reference(self) -> str:
        """The rules of all sources, each named once."""
        return ", ".join(dict.fromkeys(self.references.values()))

    def to_json(self) -> dict[str, Any]:
        """The form that `result.json` holds."""
        return {"kind": self.kind, "skill": self.skill.to_json(), "reference": self.reference}

    def learned_json(self) -> dict[str, Any]:
        """The skill with `learned` and the reference: a rule, or with several sources the rule of each."""
        rules = dict(self.references)
        reference = rules if len(rules) > 1 else self.reference
        return {**self.skill.to_json(), "learned": self.kind == "learnable", "reference": reference}


def learned_text(score: Mapping[str, Any]) -> str:
    """Return in words whether a score of `skill_learned` is learned."""
    if score["low"] is None:
        return "too few clusters"
    return "learned" if score["learned"] else "not learned"


def judge(errors: DamageErrors, clusters: np.ndarray, rows: np.ndarray | None = None) -> list[Verdict]:
    """Return a verdict for each damage on the images `rows` (n,) bool (default: all), before Holm's correction.

    `clusters` (n,) are those of `errors.index`. The list is empty if `rows` selects no image.
    """
    rows = np.ones(len(errors.index), bool) if rows is None else rows
    if not rows.any():
        return []
    names, reference = best_rules(errors)
    reference, present = reference[rows], _sources(errors, rows)
    model, untrained, group = errors.model[rows], errors.untrained[rows], clusters[rows]
    skills = skill_scores(model, reference, group)
    before = 1 - divide(untrained.sum(0), reference.sum(0))
    trivial = is_trivial(reference, errors.first[rows], errors.second[rows])
    gains = gain_p_values(reference - model, group)
    found = []
    for k, damage in enumerate(errors.damages):
        rules = {source: names[source][k] for source in present}
        start = float(np.nan_to_num(before[k]))
        found.append(Verdict(errors.pretext, damage, skills[k], start, rules, trivial[k], gains[k]))
    return found


def judge_whole(errors: DamageErrors, clusters: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Verdict | None:
    """Return one verdict on the damages `columns` (D,) bool together, weighted by their shares; None without an image.

    Every damage is compared with its own best rule; `references` names the most frequent of these by source.
    """
    if not rows.any():
        return None
    names, reference = best_rules(errors)
    weights = np.where(columns, errors.shares, 0) / errors.shares[columns].sum()
    rules = {source: [names[source][k] for k in np.flatnonzero(columns)] for source in _sources(errors, rows)}
    parts = [values[rows] @ weights for values in (errors.model, errors.untrained, reference)]
    model, untrained, reference = (part[:, None] for part in parts)
    first, second = (np.tensordot(m[rows], weights, (1, 0))[:, None] for m in (errors.first, errors.second))
    return Verdict(
        errors.pretext,
        "all",
        skill_scores(model, reference, clusters[rows])[0],
        float(np.nan_to_num(1 - divide(untrained.sum(), reference.sum()))),
        {source: max(dict.fromkeys(named), key=named.count) for source, named in rules.items()},
        is_trivial(reference, first, second)[0],
        gain_p_values(reference - model, clusters[rows])[0],
    )


def best_rules(errors: DamageErrors) -> tuple[dict[str, list[str]], np.ndarray]:
    """Return the rule with the smallest total error, by source and damage (D,), and the errors of these rules (n, D).

    The classic repair and the untrained prediction count as rules.
    """
    candidates = {**errors.rules, "classic": errors.classic, "untrained": errors.untrained}
    names, every = list(candidates), np.stack(list(candidates.values()))  # (R, n, D)
    found, chosen = {}, np.empty_like(errors.model)
    for source in dict.fromkeys(errors.source.tolist()):
        rows = errors.source == source
        best = every[:, rows].sum(1).argmin(0)  # (D,)
        found[source] = [names[rule] for rule in best]
        chosen[rows] = np.take_along_axis(every[:, rows], best[None, None], 0)[0]
    return found, chosen


def _sources(errors: DamageErrors, rows: np.ndarray) -> list[str]:
    """The sources of the images `rows`."""
    return list(dict.fromkeys(errors.source[rows].tolist()))


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
