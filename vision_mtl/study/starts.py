"""What the compared runs start from, and what a comparison says if all its seeds start from one pretraining.

An interval over seeds contains the variation of whatever differs between the seeds. If one pretraining (or discovery,
or run outside the study) serves all seeds, its variation is missing: the comparison is about that pretraining, and its
verdict says so. Published weights and a teacher are one for all seeds, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vision_mtl.core.errors import UserError
from vision_mtl.study.arms import Arm, flat
from vision_mtl.study.plan import Node, Plan, references

Finals = Mapping[tuple[str, float, int], Sequence[str]]  # arm, fraction, seed -> keys of the runs that score it
Place = tuple[str, str]  # noun, and the stage or option that names what a run starts from
Starts = dict[Place, list[str]]  # which one, for each seed
WEIGHTS, TEACHER = "set of pretrained weights", "teacher"
PUBLISHED = (WEIGHTS, TEACHER)  # nobody can give each seed its own
OUTSIDE = {"init_from": "pretraining", "selection": "discovery", "pretrain.selection": "discovery"}  # option -> noun


def ancestors(plan: Plan, keys: Sequence[str]) -> list[Node]:
    """Return the runs that the runs `keys` were made from, each once, the earliest first."""
    found: dict[str, Node] = {}
    for key in keys:
        needs = plan.nodes[key].needs
        found |= {node.key: node for node in [*ancestors(plan, needs), *(plan.nodes[one] for one in needs)]}
    return list(found.values())


def starts_of(plan: Plan, finals: Finals, arm: str, fraction: float, seeds: Sequence[int]) -> Starts:
    """Return what the arm's runs start from: the runs of its earlier stages, and files from outside the study."""
    found: Starts = {}
    for number, seed in enumerate(seeds):
        keys = finals[arm, fraction, seed]
        earlier = ancestors(plan, keys)
        own = {(plan.roles[node.stage].noun, node.stage): node.key for node in earlier}
        for node in [*earlier, *(plan.nodes[key] for key in keys)]:
            own |= _outside(node)
        for place in [*found, *(place for place in own if place not in found)]:
            found.setdefault(place, [""] * number).append(own.get(place, ""))
    return found


def check_seeds(plan: Plan, finals: Finals, arms: Mapping[str, Arm], seeds: Sequence[int]) -> None:
    """Raise `UserError` if an arm's last stage has one seed for all seeds of the study."""
    for (arm, fraction, seed), keys in finals.items():
        if seed != seeds[0] and {plan.nodes[key].seed for key in keys} == {
            plan.nodes[key].seed for key in finals[arm, fraction, seeds[0]]
        }:
            stage = arms[arm].stages[-1]
            raise UserError(
                f"study arm {arm}: the seed of its last stage, {stage}, is fixed, so {len(seeds)} seeds are one. "
                f"Remove the option seed of {stage}."
            )


def with_starts(
    comparisons: Sequence[Mapping[str, Any]], plan: Plan, finals: Finals, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the comparisons with `pretrainings`, `scope` and, where the scope is limited, a verdict that says so.

    `pretrainings` is the smallest number of different runs that the seeds of an arm start from; None if both arms start
    from random weights. `scope` is "" unless that number is below the number of seeds.
    """
    found = []
    for one in comparisons:
        pair = _pair(one, plan, finals, seeds)
        counts = [len(set(which)) for starts in pair for which in starts.values()]
        fixed = _fixed(pair, len(seeds))
        verdict = one["verdict"]
        if fixed and verdict != "undecided":
            verdict += f" (this {' and '.join(_nouns(fixed))})"
        limits = {"pretrainings": min(counts, default=None), "scope": _scope(pair, fixed), "verdict": verdict}
        found.append({**one, **limits})
    return found


def planned_scopes(
    plan: Plan, finals: Finals, pairs: Sequence[tuple[str, str]], fractions: Sequence[float], seeds: Sequence[int]
) -> dict[str, list[str]]:
    """Return scope -> the comparisons, as "ARM - BASELINE", that will have it; not for what is `PUBLISHED`."""
    found: dict[str, dict[str, None]] = {}
    for arm, baseline in pairs:
        for fraction in fractions:
            pair = _pair({"arm": arm, "baseline": baseline, "fraction": fraction}, plan, finals, seeds)
            fixed = [place for place in _fixed(pair, len(seeds)) if place[0] not in PUBLISHED]
            if fixed:
                found.setdefault(_scope(pair, fixed), {})[f"{arm} - {baseline}"] = None
    return {scope: list(names) for scope, names in found.items()}


def _pair(one: Mapping[str, Any], plan: Plan, finals: Finals, seeds: Sequence[int]) -> list[Starts]:
    """Return what the arm and the baseline of a comparison start from."""
    return [starts_of(plan, finals, one[side], one["fraction"], seeds) for side in ("arm", "baseline")]


def _outside(node: Node) -> dict[Place, str]:
    """Return what a run starts from that is from outside the study: runs, files, published weights, a teacher."""
    given = flat(node.options)
    found = {
        (noun, option): str(given[option])
        for option, noun in OUTSIDE.items()
        if given.get(option) and not references(given[option]) and not (option == "init_from" and node.start)
    }
    if weights := published_weights(node):
        found[WEIGHTS, "backbone.pretrained"] = weights
    if teacher := published_teacher(node):
        found[TEACHER, "pretexts.distil.teacher"] = teacher
    return found


def published_weights(node: Node) -> str:
    """Return the backbone and the file of the weights that a run starts from instead of another run's, or ""."""
    backbone = node.options.get("backbone") or {}
    pretrained = backbone.get("pretrained")
    if not pretrained or node.start or node.options.get("init_from"):
        return ""
    return f"{backbone.get('name', '')} {'' if pretrained is True else pretrained}".strip()


def published_teacher(node: Node) -> str:
    """Return the teacher that a run distils from, "default" if none is named; "" without one or with an arm's own."""
    pretexts = node.options.get("pretexts") or {}
    if "distil" not in pretexts:
        return ""
    teacher = str((pretexts["distil"] or {}).get("teacher", "default"))
    return "" if references(teacher) else teacher


def _fixed(pair: Sequence[Starts], num_seeds: int) -> list[Place]:
    """Return what differs between fewer than all seeds, in either arm."""
    places = [place for starts in pair for place, which in starts.items() if len(set(which)) < num_seeds]
    return list(dict.fromkeys(places))


def _scope(pair: Sequence[Starts], fixed: Sequence[Place]) -> str:
    if not fixed:
        return ""
    nouns = _nouns(fixed)
    one = " and ".join(f"one {noun}" + " behind all seeds" * (noun in PUBLISHED) for noun in nouns)
    another = "others" if len(nouns) > 1 else "another" if nouns[0] in PUBLISHED else f"another {nouns[0]}"
    if all(pair[0].get(place) == pair[1].get(place) for place in fixed):
        return f"both from {one}: does not say what they would give from {another}"
    return f"over {one}: does not say what {another} would give"


def _nouns(places: Sequence[Place]) -> list[str]:
    return list(dict.fromkeys(noun for noun, _ in places))
