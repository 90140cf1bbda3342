"""What the compared runs start from, and what a comparison says if all its seeds start from one pretraining.

An interval over seeds contains the variation of whatever differs between the seeds. If one pretraining (or discovery,
or run outside the study) serves all seeds, its variation is missing: the comparison is about that pretraining, and its
verdict says so.
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
WEIGHTS, PRETRAINED = "set of pretrained weights", "backbone.pretrained"
OUTSIDE = {  # option -> noun
    "init_from": "pretraining",
    "selection": "discovery",
    "pretrain.selection": "discovery",
    PRETRAINED: WEIGHTS,
}


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
        pair = [starts_of(plan, finals, one[side], one["fraction"], seeds) for side in ("arm", "baseline")]
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
    """Return scope -> the comparisons, as "ARM - BASELINE", that will have it.

    Without those whose only limit is one set of pretrained weights: that is meant, and no seed can change it.
    """
    rows = [
        {"arm": arm, "baseline": baseline, "fraction": fraction, "verdict": "undecided"}
        for arm, baseline in pairs
        for fraction in fractions
    ]
    found: dict[str, dict[str, None]] = {}
    for row in with_starts(rows, plan, finals, seeds):
        if row["scope"] and row["scope"].partition(":")[0] not in (f"over one {WEIGHTS}", f"both from one {WEIGHTS}"):
            found.setdefault(row["scope"], {})[f"{row['arm']} - {row['baseline']}"] = None
    return {scope: list(names) for scope, names in found.items()}


def _outside(node: Node) -> dict[Place, str]:
    """Return the files from outside the study that a run starts from."""
    given = flat(node.options)
    found = {
        (noun, option): str(given[option])
        for option, noun in OUTSIDE.items()
        if given.get(option) and not references(given[option]) and not (option == "init_from" and node.start)
    }
    weights = found.pop((WEIGHTS, PRETRAINED), None)
    if weights and not (node.start or given.get("init_from")):  # otherwise the weights are those of that run
        found[WEIGHTS, PRETRAINED] = f"{given.get('backbone.name')} {weights}"
    return found


def _fixed(pair: Sequence[Starts], num_seeds: int) -> list[Place]:
    """Return what differs between fewer than all seeds, in either arm."""
    places = [place for starts in pair for place, which in starts.items() if len(set(which)) < num_seeds]
    return list(dict.fromkeys(places))


def _scope(pair: Sequence[Starts], fixed: Sequence[Place]) -> str:
    if not fixed:
        return ""
    nouns = _nouns(fixed)
    one = " and ".join(f"one {noun}" for noun in nouns)
    another = f"another {nouns[0]}" if len(nouns) == 1 else "others"
    if all(pair[0].get(place) == pair[1].get(place) for place in fixed):
        return f"both from {one}: does not say what they would give from {another}"
    return f"over {one}: does not say what {another} would give"


def _nouns(places: Sequence[Place]) -> list[str]:
    return list(dict.fromkeys(noun for noun, _ in places))
