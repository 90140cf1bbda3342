"""Verdicts in tables: all images together, by source, by class; by damage, by scale, by pretext."""
# n images

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vision_mtl.data.pool import Pool
from vision_mtl.discovery.kinds import Verdict, corrected, judge, judge_whole
from vision_mtl.discovery.measure import DamageErrors

CLASSES = 60  # classes of a task beyond this many, the rarest, are left out of the tables by class
Group = tuple[str, str]  # (all, source or task, its name or task/class)


@dataclass(frozen=True)
class SkillTables:
    """Verdicts by group of images. Holm's correction is over the groups of one kind together.

    `damages` has a verdict for each damage, `scales` one for each (pretext, scale), `pretexts` one for each pretext.
    """

    damages: dict[Group, list[Verdict]]
    scales: dict[Group, list[Verdict]]
    pretexts: dict[Group, list[Verdict]]

    def metrics(self) -> dict[str, Any]:
        """The form of `result.json`."""
        (whole,) = [group for group in self.damages if group[0] == "all"]
        of = {kind: [g for g in self.damages if g[0] == kind] for kind in ("source", "class")}
        found: dict[str, Any] = {
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
        """A row for each verdict on a damage, a scale or a pretext, for a CSV file."""
        found = []
        for level, table in (("pretext", self.pretexts), ("scale", self.scales), ("damage", self.damages)):
            for (kind, name), verdicts in table.items():
                found += [{"images": kind, "name": name, "level": level, **_row(verdict)} for verdict in verdicts]
        return found


def build_tables(pool: Pool, errors: Sequence[DamageErrors]) -> SkillTables:
    """Every verdict on every group of images."""
    tables: tuple[dict[Group, list[Verdict]], ...] = ({}, {}, {})
    for group, members in groups(pool).items():
        for table, found in zip(tables, _judged(pool, errors, members), strict=True):
            if found:
                table[group] = found
    return SkillTables(*(_corrected(table) for table in tables))


def groups(pool: Pool) -> dict[Group, np.ndarray]:
    """(N,) bool for all images, those of each source, and those of each class of the single-label tasks."""
    found: dict[Group, np.ndarray] = {("all", "all"): np.ones(len(pool), bool)}
    found |= {("source", name): pool.member[:, column] for column, name in enumerate(pool.sources)}
    for task, labels in pool.labels.items():
        names = pool.class_names[task]
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        for number in np.argsort(-counts, kind="stable")[:CLASSES]:
            found["class", f"{task}/{names[number]}"] = labels == number
    return found


def _judged(
    pool: Pool, errors: Sequence[DamageErrors], members: np.ndarray
) -> tuple[list[Verdict], list[Verdict], list[Verdict]]:
    damages, scales, pretexts = [], [], []
    for own in errors:
        rows, clusters = members[own.index], pool.cluster[own.index]
        damages += judge(own, clusters, rows)
        whole = judge_whole(own, clusters, rows, np.ones(len(own.damages), bool))
        if whole is not None:
            pretexts.append(whole)
            for scale in dict.fromkeys(own.scales):
                part = judge_whole(own, clusters, rows, np.array([s == scale for s in own.scales]))
                if part is not None:
                    scales.append(replace(part, damage=scale))
    return damages, scales, pretexts


def _corrected(table: Mapping[Group, list[Verdict]]) -> dict[Group, list[Verdict]]:
    """Holm over the groups of one kind: all, the sources together, the classes together."""
    found: dict[Group, list[Verdict]] = {}
    for kind in ("all", "source", "class"):
        own = {group: verdicts for group, verdicts in table.items() if group[0] == kind}
        adjusted = iter(corrected([verdict for verdicts in own.values() for verdict in verdicts]))
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
