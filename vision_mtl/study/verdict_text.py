"""Sentences of a study's report: each comparison's verdict with its numbers, summaries, and how to read them."""
# m comparisons of a study

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.power import NOTHING_SHOWN, largest_difference
from vision_mtl.evaluation.sign_flip import sign_flip_floor
from vision_mtl.study.independence import MARK, independent_only
from vision_mtl.study.number_format import Score, Unit, format_count, format_fraction, format_level, format_p_value

VERDICTS = ("helps", "hurts", "equivalent", "undecided")
Comparison = Mapping[str, Any]
IMPROVEMENT = (
    "Probability of improvement: how often a run of the arm beats a run of its baseline, over all pairs of their "
    "seeds, ties counting half; 50 % is no difference. It says how often, not by how much, and does not decide the "
    "verdict. Its interval is over seeds only and has no width where every pair agrees."
)


@dataclass(frozen=True)
class Sentence:
    """One comparison as text, with its verdict and its label fraction."""

    verdict: str
    fraction: str
    text: str


def plain_verdict(verdict: str) -> str:
    """Return the verdict without its limit: "helps (this pretraining)" is "helps"."""
    return verdict.partition(" (")[0]


def identical(one: Comparison) -> bool:
    """Return whether the arms had equal scores in every seed and on every image."""
    return one["num_seeds"] > 1 and one["std"] == 0 and one["difference"]["value"] == 0 and not one["image_error"]


def is_beyond(one: Comparison) -> bool:
    """Return whether the detectable difference is larger than any that is possible: the design can show nothing."""
    possible = largest_difference(one["arm_score"]["value"], one["baseline_score"]["value"])
    return one["minimum_detectable"] is not None and one["minimum_detectable"] > possible


def verdict_sentence(one: Comparison, unit: Unit, m: int, chance: Score | None = None) -> Sentence:
    """Return the comparison as a sentence, without its task: "a is +3.1 points [1.2, 5.0] above b: helps".

    An undecided one states the smallest detectable difference, if a difference can be as large. With `chance`, the
    sentence also states if neither arm's interval excludes it: arms that learnt nothing cannot differ. A limited scope,
    such as one pretraining, comes last.
    """
    found, verdict = unit.difference(one["difference"]), plain_verdict(one["verdict"])
    pair = f"{one['arm']} against {one['baseline']}"
    if verdict == "undecided":
        text = f"{pair}: undecided, {_undecided(one, unit, m)}"
    elif verdict == "equivalent":
        text = f"{pair}: {one['verdict']}, {_equivalent(one, unit)}"
    else:
        relation = "above" if verdict == "helps" else "below"
        text = f"{one['arm']} is {found} {relation} {one['baseline']}: {one['verdict']}"
        if one.get("within_rope"):
            text += f", but by less than {unit.amount(one['rope'])}, which does not matter here"
    if chance is not None and _at_chance(one, chance):
        text += f"; neither is shown to be above chance ({unit.value(chance['value'])})"
    if one.get("scope"):
        text += f"; {one['scope']}"
    if not one.get("independent", True):
        text += f" {MARK}"
    return Sentence(verdict, format_fraction(one["fraction"]), text)


def verdict_reason(one: Comparison, unit: Unit) -> str:
    """Return the reason of the verdict: the interval that decides it or, without one, the record's reason."""
    deciding = one["difference_holm"]
    if deciding["low"] is None:
        return one["reason"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    verdict, contains = plain_verdict(one["verdict"]), "excludes 0"
    if verdict == "undecided":
        contains = "contains 0"
    if verdict == "equivalent" or one.get("within_rope"):
        contains = f"{'excludes 0 and ' * (verdict != 'equivalent')}lies within ±{unit.amount(one['rope'])}"
    return f"the {format_level(deciding['level'])} interval {unit.interval(deciding)} {contains}"


def family_size(one: Comparison, comparisons: Sequence[Comparison]) -> int:
    """Return the number of comparisons that the one is corrected for: the independent ones, or the others."""
    own = one.get("independent", True)
    return sum(other.get("independent", True) == own for other in comparisons)


def design_size(record: Mapping[str, Any]) -> str:
    """Return the numbers of arms, tasks, label fractions and seeds, as a product."""
    sizes = [(record["arms"], "arm"), (record["tasks"], "task")]
    sizes += [(record["fractions"], "share of labels"), (record["seeds"], "seed")]
    return " × ".join(format_count(len(found), noun) for found, noun in sizes)  # noqa: RUF001, the sign


def how_to_read(record: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know to interpret the verdicts, a sentence or two each."""
    num_seeds, compared = len(record["seeds"]), record["comparisons"]
    m = len(independent_only(compared))
    paired = (
        "All arms have the same seeds, splits, labels and test images, so differences are paired, by image and by seed "
        f"({format_count(num_seeds, 'seed')})."
    )
    sentences = [paired] if compared else []
    others = [name for name, arm in record["arms"].items() if arm.get("seed_offset")]
    if others and compared:
        sentences.append(f"Except {', '.join(others)}: other seeds, and so other subsets of the labels.")
    if num_seeds > 1:
        sentences.append("Square brackets show a 95 % interval, which covers other seeds and other test images.")
    else:
        sentences.append("One seed shows no variation, so no score has an interval and no comparison is decided.")
    sentences += _how_to_decide(num_seeds, m, compared) if m and num_seeds > 1 else []
    sentences += _how_limited(compared)
    sentences.append("Chance is the score of the same predictions, randomly permuted over images.")
    have_classes = {label_kind(task["kind"]).has_classes for task in record["tasks"].values()}
    if True in have_classes:
        sentences.append("Points are percentage points.")
    if False in have_classes:
        sentences.append("A regression's score is minus its absolute error, in units of the label: + is less error.")
    return sentences


def _how_limited(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what limits some comparisons: one start for all seeds, and what it may know."""
    found = []
    if any(one.get("scope") for one in comparisons):
        found.append(
            "Over one pretraining (discovery, set of weights, teacher): all seeds start from the same, so the interval "
            "lacks the variation between pretrainings. The verdict is about this one, not about the recipe."
        )
    dependent = len(comparisons) - len(independent_only(comparisons))
    if dependent:
        found.append(
            f"{MARK} Not independent: what the arm or its baseline starts from may have been trained on images or "
            f"labels of the task. {format_count(dependent, 'comparison')}, corrected apart from the others; no "
            "count, summary or mean over tasks includes them."
        )
    return found


def _how_to_decide(num_seeds: int, m: int, comparisons: Sequence[Comparison]) -> list[str]:
    wide = f", widened by Holm's correction for a family of {m} comparisons," if m > 1 else ""
    error = "any false one among them" if m > 1 else "a false verdict"
    equivalent = (
        f"Equivalent: the interval{wide} lies within the largest difference that does not matter; the probability of "
        f"{error} is at most 2.5 %. An effect that is shown and too small to matter still helps or hurts."
    )
    return [
        f"Helps and hurts: the interval of the difference{wide} excludes 0; the probability of {error} is at most 5 %.",
        *([equivalent] if any(one.get("rope") for one in comparisons) else []),
        "Undecided does not mean equal: the interval contains 0. The smallest detectable difference is the true "
        "difference that 80 % of studies with as many seeds and images would find.",
        f"p is from the exact sign-flip test over seeds. {format_count(num_seeds, 'seed').capitalize()} cannot give "
        f"one below {format_p_value(sign_flip_floor(num_seeds))}, so it does not decide the verdict.",
        *([IMPROVEMENT] if any("probability_of_improvement" in one for one in comparisons) else []),
    ]


def headline(comparisons: Sequence[Comparison]) -> str:
    """Return one sentence with the number of independent comparisons of each verdict, and that of the others."""
    if not comparisons:
        return "There is nothing to compare."
    others = len(comparisons) - len(independent_only(comparisons))
    if others == len(comparisons):
        return f"No comparison is independent ({MARK})."
    text = _counts(independent_only(comparisons))
    return f"{text} {others} more {'is' if others == 1 else 'are'} not independent ({MARK})." if others else text


def _counts(comparisons: Sequence[Comparison]) -> str:
    found = [plain_verdict(one["verdict"]) for one in comparisons]
    counts = {verdict: found.count(verdict) for verdict in VERDICTS}
    if len(comparisons) == 1:
        verdict = comparisons[0]["verdict"]
        is_open = found[0] in ("equivalent", "undecided")
        return f"The one comparison is {verdict}." if is_open else f"In the one comparison, it {verdict}."
    parts = [f"{n} {_plural(verdict, n)}" for verdict, n in counts.items() if n or verdict != "equivalent"]
    limited = [one["verdict"] for one in comparisons if one["verdict"] not in VERDICTS]
    only = f"{len(limited)} {'verdict is' if len(limited) == 1 else 'verdicts are'} only about {_limits(limited)}"
    about = f"; {only}" if limited else ""
    return f"Of {len(comparisons)} comparisons, {', '.join(parts[:-1])} and {parts[-1]}{about}."


def summaries(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence per arm and baseline: where it helps, hurts, is equivalent, and how often it is undecided.

    Comparisons that are not independent are left out.
    """
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for one in independent_only(comparisons):
        pairs.setdefault((one["arm"], one["baseline"]), []).append(one)
    return [_summary(*pair, found) for pair, found in pairs.items()]


def _summary(arm: str, baseline: str, found: Sequence[Comparison]) -> str:
    parts = []
    for verdict in ("helps", "hurts", "equivalent"):
        places: dict[str, list[str]] = {}
        for one in found:
            if plain_verdict(one["verdict"]) == verdict:
                places.setdefault(one["task"], []).append(format_fraction(one["fraction"]))
        named = [f"{task} ({', '.join(at).replace(' % labels,', ' %,')})" for task, at in places.items()]
        if named or verdict != "equivalent":
            parts.append(f"{verdict} on {', '.join(named)}" if named else f"{verdict} on no task")
    num_undecided = sum(one["verdict"] == "undecided" for one in found)
    tail = f"undecided in {num_undecided} of {len(found)}" if num_undecided else "none undecided"
    scopes = dict.fromkeys(one["scope"] for one in found if one.get("scope"))
    return f"{arm} against {baseline}: {'; '.join([*parts, tail, *scopes])}."


def _equivalent(one: Comparison, unit: Unit) -> str:
    found, deciding = one["difference"], one["difference_holm"]
    wider = f", corrected {unit.interval(deciding)}" if unit.interval(deciding) != unit.interval(found) else ""
    return f"{unit.difference(found)}{wider}, within ±{unit.amount(one['rope'])}"


def _undecided(one: Comparison, unit: Unit, m: int) -> str:
    found, deciding = one["difference"], one["difference_holm"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    text = unit.difference(found)
    if deciding["low"] is None:
        return f"{text}; {one['reason']}"
    if not found["low"] <= 0 <= found["high"]:
        text += f", but the interval corrected for {m} comparisons, {unit.interval(deciding)}, contains 0"
    if is_beyond(one):
        return f"{text}; {NOTHING_SHOWN}"
    if one["minimum_detectable"] is not None:
        text += f"; smallest detectable difference {unit.amount(one['minimum_detectable'])}"
    return text


def _at_chance(one: Comparison, chance: Score) -> bool:
    lows = [one[arm]["low"] for arm in ("arm_score", "baseline_score")]
    return all(low is not None and low <= chance["value"] for low in lows)


def _limits(limited: Sequence[str]) -> str:
    """Return what limited verdicts are about: "this pretraining"."""
    return " or ".join(dict.fromkeys(verdict.partition(" (")[2].rstrip(")") for verdict in limited))


def _plural(verdict: str, count: int) -> str:
    if verdict in ("equivalent", "undecided"):
        return f"{'is' if count == 1 else 'are'} {verdict}"
    return verdict if count == 1 else {"helps": "help", "hurts": "hurt"}[verdict]
