"""Sentences of a study's report: each comparison's verdict with its numbers, summaries, and how to read them."""
# m comparisons of a study

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.sign_flip import sign_flip_floor
from vision_mtl.study.number_format import Score, Unit, format_count, format_fraction, format_level, format_p_value

VERDICTS = ("helps", "hurts", "undecided")
Comparison = Mapping[str, Any]


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


def verdict_sentence(one: Comparison, unit: Unit, m: int, chance: Score | None = None) -> Sentence:
    """Return the comparison as a sentence, without its task: "a is +3.1 points [1.2, 5.0] above b: helps".

    An undecided one states the smallest detectable difference. With `chance`, the sentence also states if neither arm's
    interval excludes it: arms that learnt nothing cannot differ. A limited scope, such as one pretraining, comes last.
    """
    found = unit.difference(one["difference"])
    if one["verdict"] == "undecided":
        text = f"{one['arm']} against {one['baseline']}: undecided, {_undecided(one, unit, m)}"
    else:
        relation = "above" if plain_verdict(one["verdict"]) == "helps" else "below"
        text = f"{one['arm']} is {found} {relation} {one['baseline']}: {one['verdict']}"
    if chance is not None and _at_chance(one, chance):
        text += f"; neither is shown to be above chance ({unit.value(chance['value'])})"
    if one.get("scope"):
        text += f"; {one['scope']}"
    return Sentence(plain_verdict(one["verdict"]), format_fraction(one["fraction"]), text)


def verdict_reason(one: Comparison, unit: Unit) -> str:
    """Return the reason of the verdict: the interval that decides it or, without one, the record's reason."""
    deciding = one["difference_holm"]
    if deciding["low"] is None:
        return one["reason"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    contains = "contains 0" if one["verdict"] == "undecided" else "excludes 0"
    return f"the {format_level(deciding['level'])} interval {unit.interval(deciding)} {contains}"


def design_size(record: Mapping[str, Any]) -> str:
    """Return the numbers of arms, tasks, label fractions and seeds, as a product."""
    sizes = [(record["arms"], "arm"), (record["tasks"], "task")]
    sizes += [(record["fractions"], "share of labels"), (record["seeds"], "seed")]
    return " × ".join(format_count(len(found), noun) for found, noun in sizes)  # noqa: RUF001, the sign


def how_to_read(record: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know to interpret the verdicts, a sentence or two each."""
    num_seeds, m = len(record["seeds"]), len(record["comparisons"])
    paired = (
        "All arms have the same seeds, splits, labels and test images, so differences are paired, by image and by seed "
        f"({format_count(num_seeds, 'seed')})."
    )
    sentences = [paired] if m else []
    if num_seeds > 1:
        sentences.append("Square brackets show a 95 % interval, which covers other seeds and other test images.")
    else:
        sentences.append("One seed shows no variation, so no score has an interval and no comparison is decided.")
    sentences += _how_to_decide(num_seeds, m) if m and num_seeds > 1 else []
    if any(one.get("scope") for one in record["comparisons"]):
        sentences.append(
            "Over one pretraining (or discovery): all seeds start from the same, so the interval lacks the variation "
            "between pretrainings. The verdict is about this one, not about the recipe."
        )
    sentences.append("Chance is the score of the same predictions, randomly permuted over images.")
    have_classes = {label_kind(task["kind"]).has_classes for task in record["tasks"].values()}
    if True in have_classes:
        sentences.append("Points are percentage points.")
    if False in have_classes:
        sentences.append("A regression's score is minus its absolute error, in units of the label: + is less error.")
    return sentences


def _how_to_decide(num_seeds: int, m: int) -> list[str]:
    wide = f", widened by Holm's correction for a family of {m} comparisons," if m > 1 else ""
    error = "any false verdict among them" if m > 1 else "a false verdict"
    return [
        f"Helps and hurts: the interval of the difference{wide} excludes 0; the probability of {error} is at most 5 %.",
        "Undecided does not mean equal: the interval contains 0. The smallest detectable difference is the true "
        "difference that 80 % of studies with as many seeds and images would find.",
        f"p is from the exact sign-flip test over seeds. {format_count(num_seeds, 'seed').capitalize()} cannot give "
        f"one below {format_p_value(sign_flip_floor(num_seeds))}, so it does not decide the verdict.",
    ]


def headline(comparisons: Sequence[Comparison]) -> str:
    """Return one sentence with the number of comparisons of each verdict."""
    if not comparisons:
        return "There is nothing to compare."
    found = [plain_verdict(one["verdict"]) for one in comparisons]
    counts = {verdict: found.count(verdict) for verdict in VERDICTS}
    if len(comparisons) == 1:
        return {"undecided": "The one comparison is undecided."}.get(
            comparisons[0]["verdict"], f"In the one comparison, it {comparisons[0]['verdict']}."
        )
    helping, hurting, undecided = (f"{count} {_plural(verdict, count)}" for verdict, count in counts.items())
    limited = [one["verdict"] for one in comparisons if one["verdict"] not in VERDICTS]
    only = f"{len(limited)} {'verdict is' if len(limited) == 1 else 'verdicts are'} only about {_limits(limited)}"
    about = f"; {only}" if limited else ""
    return f"Of {len(comparisons)} comparisons, {helping}, {hurting} and {undecided}{about}."


def summaries(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence per arm and baseline: where it helps, where it hurts, and how often it is undecided."""
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for one in comparisons:
        pairs.setdefault((one["arm"], one["baseline"]), []).append(one)
    return [_summary(*pair, found) for pair, found in pairs.items()]


def _summary(arm: str, baseline: str, found: Sequence[Comparison]) -> str:
    parts = []
    for verdict in ("helps", "hurts"):
        places: dict[str, list[str]] = {}
        for one in found:
            if plain_verdict(one["verdict"]) == verdict:
                places.setdefault(one["task"], []).append(format_fraction(one["fraction"]))
        named = [f"{task} ({', '.join(at).replace(' % labels,', ' %,')})" for task, at in places.items()]
        parts.append(f"{verdict} on {', '.join(named)}" if named else f"{verdict} on no task")
    num_undecided = sum(one["verdict"] == "undecided" for one in found)
    tail = f"undecided in {num_undecided} of {len(found)}" if num_undecided else "none undecided"
    scopes = dict.fromkeys(one["scope"] for one in found if one.get("scope"))
    return f"{arm} against {baseline}: {'; '.join([*parts, tail, *scopes])}."


def _undecided(one: Comparison, unit: Unit, m: int) -> str:
    found, deciding = one["difference"], one["difference_holm"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    text = unit.difference(found)
    if deciding["low"] is None:
        return f"{text}; {one['reason']}"
    if not found["low"] <= 0 <= found["high"]:
        text += f", but the interval corrected for {m} comparisons, {unit.interval(deciding)}, contains 0"
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
    if verdict == "undecided":
        return f"{'is' if count == 1 else 'are'} undecided"
    return verdict if count == 1 else {"helps": "help", "hurts": "hurt"}[verdict]
