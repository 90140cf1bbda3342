"""Tables of verdicts by group of images (all, source, class) and by level (damage, scale, pretext)."""
# n images

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vision_mtl.data.pool import Pool
from vision_mtl.discovery.kinds import Verdict, correct_verdicts, judge, judge_whole
from vision_mtl.discovery.measure import DamageErrors

CLASSES = 60  # tables by class have at most this many classes of a task, the most frequent ones
Group = tuple[str, str]  # ("all", "all"), ("source", NAME) or ("class", TASK/CLASS)


@dataclass(frozen=True)
class SkillTables:
    """Verdicts by group of images, after Holm's correction over all groups of one kind.

    `damages` has a verdict for each damage, `scales` one for each (pretext, scale), `pretexts` one for each pretext.
    """

    damages: dict[Group, list[Verdict]]
    scales: dict[Group, list[Verdict]]
    pretexts: dict[Group, list[Verdict]]

    def metrics(self) -> dict[str, Any]:
        """The verdicts in the form of `result.json`."""
        (whole,) = [group for group in self.damages if group[0] == "all"]
        of = {kind: [g for g in self.damages if g[0] == kind] for kind in ("source", "class")}
        found: dict[str, Any] = {
            **learned_metrics(self.pretexts),
            "skill": _skills(self.pretexts[whole]),
            "skill_untrained": _untrained(self.pretexts[whole]),
            "skill_by_source": {name: _skills(self.pretexts["source", name]) for _, name in of["source"]},
            "skill_untrained_by_source": {n: _untrained(self.pretexts["source", n]) for _, n in of["source"]},
            "skill_by_scale": _nested(self.scales[whole], lambda verdict: verdict.skill.to_json()),
            "kinds": _nested(self.damages[whole], Verdict.to_json),
            "kinds_by_source": {n: _nested(self.damages["source", n], Verdict.to_json) for _, n in of["source"]},
            "kinds_by_class": {},
        }
        for _, name in of["class"]:
            task, _, label = name.partition("/")
            verdicts = {verdict.pretext: verdict.to_json() for verdict in self.pretexts["class", name]}
            found["kinds_by_class"].setdefault(task, {})[label] = verdicts
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One row for each verdict on a damage, a scale or a pretext, for a CSV file."""
        found = []
        for level, table in (("pretext", self.pretexts), ("scale", self.scales), ("damage", self.damages)):
            for (kind, name), verdicts in table.items():
                found += [{"images": kind, "name": name, "level": level, **_row(verdict)} for verdict in verdicts]
        return found


def learned_metrics(pretexts: Mapping[Group, Sequence[Verdict]]) -> dict[str, Any]:
    """Verdicts on whole pretexts as `skill_learned` and `skill_learned_by_source` of `result.json`."""
    found: dict[str, Any] = {"skill_learned": {}, "skill_learned_by_source": {}}
    for (kind, name), verdicts in pretexts.items():
        scores = {verdict.pretext: verdict.learned_json() for verdict in verdicts}
        if kind == "all":
            found["skill_learned"] = scores
        elif kind == "source":
            found["skill_learned_by_source"][name] = scores
    return found


def judge_pretexts(pool: Pool, errors: Sequence[DamageErrors]) -> dict[Group, list[Verdict]]:
    """Return a verdict on each pretext for all images and for those of each source, after Holm's correction."""
    found: dict[Group, list[Verdict]] = {}
    for group, members in source_groups(pool).items():
        verdicts = [_judge_pretext(pool, own, members) for own in errors]
        if kept := [verdict for verdict in verdicts if verdict is not None]:
            found[group] = kept
    return _correct_table(found)


def build_tables(pool: Pool, errors: Sequence[DamageErrors]) -> SkillTables:
    """Return every verdict on every group of images."""
    tables: tuple[dict[Group, list[Verdict]], ...] = ({}, {}, {})
    for group, members in groups(pool).items():
        for table, verdicts in zip(tables, _judge_members(pool, errors, members), strict=True):
            if verdicts:
                table[group] = verdicts
    return SkillTables(*(_correct_table(table) for table in tables))


def groups(pool: Pool) -> dict[Group, np.ndarray]:
    """Group -> (N,) bool: all images, those of each source, and those of each class of the single-label tasks."""
    found = source_groups(pool)
    for task, labels in pool.labels.items():
        names = pool.class_names[task]
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        for number in np.argsort(-counts, kind="stable")[:CLASSES]:
            found["class", f"{task}/{names[number]}"] = labels == number
    return found


def source_groups(pool: Pool) -> dict[Group, np.ndarray]:
    """Group -> (N,) bool: all images, and those of each source."""
    found: dict[Group, np.ndarray] = {("all", "all"): np.ones(len(pool), bool)}
    return found | {("source", name): pool.member[:, column] for column, name in enumerate(pool.sources)}


def _judge_pretext(pool: Pool, errors: DamageErrors, members: np.ndarray) -> Verdict | None:
    """The verdict on a pretext for the images `members` (N,) bool, before Holm's correction; None without an image."""
    every = np.ones(len(errors.damages), bool)
    return judge_whole(errors, pool.cluster[errors.index], members[errors.index], every)


def _judge_members(
    pool: Pool, errors: Sequence[DamageErrors], members: np.ndarray
) -> tuple[list[Verdict], list[Verdict], list[Verdict]]:
    """Verdicts on each damage, scale and pretext, for the images `members` (N,) bool, before Holm's correction."""
    damages, scales, pretexts = [], [], []
    for own in errors:
        rows, clusters = members[own.index], pool.cluster[own.index]
        damages += judge(own, clusters, rows)
        whole = _judge_pretext(pool, own, members)
        if whole is not None:
            pretexts.append(whole)
            for scale in dict.fromkeys(own.scales):
                part = judge_whole(own, clusters, rows, np.array([s == scale for s in own.scales]))
                if part is not None:
                    scales.append(replace(part, damage=scale))
    return damages, scales, pretexts


def _correct_table(table: Mapping[Group, list[Verdict]]) -> dict[Group, list[Verdict]]:
    """Apply Holm's correction over the groups of each kind: all images, the sources, the classes."""
    found: dict[Group, list[Verdict]] = {}
    for kind in ("all", "source", "class"):
        own = {group: verdicts for group, verdicts in table.items() if group[0] == kind}
        adjusted = iter(correct_verdicts([verdict for verdicts in own.values() for verdict in verdicts]))
        found |= {group: [next(adjusted) for _ in verdicts] for group, verdicts in own.items()}
    return found


def _nested(verdicts: Sequence[Verdict], shown: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.pretext, {})[verdict.damage] = shown(verdict)
    return found


def _skills(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {verdict.pretext: verdict.skill.to_json() for verdict in verdicts}


def _untrained(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {v.pretext: replace(v.skill, value=v.untrained, low=None, high=None).to_json() for v in verdicts}


def _row(verdict: Verdict) -> dict[str, Any]:
    score = verdict.skill.to_json()
    rest = {"kind": verdict.kind, "skill": score.pop("value"), **score}
    return {
        "pretext": verdict.pretext,
        "damage": verdict.damage,
        **rest,
        "reference": verdict.reference,
        "p_value": verdict.gain_p,
        "p_value_holm": verdict.holm_p,
    }
