"""Verdicts in words: what each comparison of a study found, as a sentence with its numbers, and how to read it."""
# m comparisons of a study

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.sign_flip import sign_flip_floor
from vision_mtl.study.number_format import Score, Unit, count_words, level_words, p_words, share_words

VERDICTS = ("helps", "hurts", "undecided")
Comparison = Mapping[str, Any]


@dataclass(frozen=True)
class Sentence:
    """One comparison in words, the share of the labels that it was made at, and what it came to."""

    verdict: str
    share: str
    text: str


def identical(one: Comparison) -> bool:
    """Whether the arms never differed, in any seed or on any image that the spread would tell."""
    return one["num_seeds"] > 1 and one["std"] == 0 and one["difference"]["value"] == 0 and not one["image_error"]


def verdict_sentence(one: Comparison, unit: Unit, m: int, chance: Score | None = None) -> Sentence:
    """The comparison in words, without its task: "a is +3.1 points [1.2, 5.0] above b: helps".

    An undecided one says what the study could have seen. Where `chance` is given and neither arm's interval leaves it
    out, that is said too: arms that learnt nothing cannot differ.
    """
    found = unit.difference(one["difference"])
    if one["verdict"] == "undecided":
        text = f"{one['arm']} against {one['baseline']}: undecided, {_undecided(one, unit, m)}"
    else:
        side = "above" if one["verdict"] == "helps" else "below"
        text = f"{one['arm']} is {found} {side} {one['baseline']}: {one['verdict']}"
    if chance is not None and _at_chance(one, chance):
        text += f"; neither is shown to be above chance ({unit.value(chance['value'])})"
    return Sentence(one["verdict"], share_words(one["fraction"]), text)


def reason_words(one: Comparison, unit: Unit) -> str:
    """Why the verdict is what it is: the interval that it goes by. Where there is none, the record's own reason."""
    deciding = one["difference_holm"]
    if deciding["low"] is None:
        return one["reason"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    does = "holds 0" if one["verdict"] == "undecided" else "leaves out 0"
    return f"the {level_words(deciding['level'])} interval {unit.interval(deciding)} {does}"


def design_words(record: Mapping[str, Any]) -> str:
    """The size of the study in one sentence."""
    sizes = [(record["arms"], "arm"), (record["tasks"], "task")]
    sizes += [(record["fractions"], "share of labels"), (record["seeds"], "seed")]
    return " × ".join(count_words(len(found), noun) for found, noun in sizes)  # noqa: RUF001, the sign


def how_to_read(record: Mapping[str, Any]) -> list[str]:
    """What a reader must know to trust a verdict no further than it goes; a sentence or two each."""
    num_seeds, m = len(record["seeds"]), len(record["comparisons"])
    paired = (
        "All arms were run with the same seeds, splits and labels and judged on the same test images, so differences "
        f"are taken in pairs, image by image and seed by seed ({count_words(num_seeds, 'seed')})."
    )
    told = [paired] if m else []
    if num_seeds > 1:
        told.append("Square brackets hold a 95 % interval, which speaks of other seeds and of other test images.")
    else:
        told.append("One seed tells no spread, so no score has an interval and nothing can be decided.")
    told += _how_to_decide(num_seeds, m) if m and num_seeds > 1 else []
    told.append("Chance is what the same answers score when they are dealt out at random.")
    have_classes = {label_kind(task["kind"]).has_classes for task in record["tasks"].values()}
    if True in have_classes:
        told.append("Points are percentage points.")
    if False in have_classes:
        told.append("A regression's score is minus its absolute error, in units of the label: + is less error.")
    return told


def _how_to_decide(num_seeds: int, m: int) -> list[str]:
    wide = f", widened by Holm's rule for a family of {m} comparisons," if m > 1 else ""
    chance = "any false verdict among them" if m > 1 else "a false verdict"
    return [
        f"Helps and hurts: the interval of the difference{wide} leaves out 0; the chance of {chance} is 5 % at most.",
        "Undecided is not equal: 0 is within reach. What the study could have seen is the smallest true difference "
        "that so many seeds and images show in 80 % of studies.",
        f"p is that of the exact sign-flip test over seeds. {count_words(num_seeds, 'seed').capitalize()} cannot give "
        f"one below {p_words(sign_flip_floor(num_seeds))}, so it stands beside the verdict and does not decide.",
    ]


def headline(comparisons: Sequence[Comparison]) -> str:
    """How many comparisons there are and what became of them, in one sentence."""
    if not comparisons:
        return "There is nothing to compare."
    counts = {verdict: sum(one["verdict"] == verdict for one in comparisons) for verdict in VERDICTS}
    if len(comparisons) == 1:
        return {"undecided": "The one comparison is undecided."}.get(
            comparisons[0]["verdict"], f"In the one comparison, it {comparisons[0]['verdict']}."
        )
    told = [f"{count} {_plural(verdict, count)}" for verdict, count in counts.items()]
    return f"Of {len(comparisons)} comparisons, {told[0]}, {told[1]} and {told[2]}."


def summaries(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for each arm against its baseline: where it helps, where it hurts, and how often neither."""
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for one in comparisons:
        pairs.setdefault((one["arm"], one["baseline"]), []).append(one)
    return [_summary(*pair, found) for pair, found in pairs.items()]


def _summary(arm: str, baseline: str, found: Sequence[Comparison]) -> str:
    parts = []
    for verdict in ("helps", "hurts"):
        places: dict[str, list[str]] = {}
        for one in found:
            if one["verdict"] == verdict:
                places.setdefault(one["task"], []).append(share_words(one["fraction"]))
        told = [f"{task} ({', '.join(at).replace(' % labels,', ' %,')})" for task, at in places.items()]
        parts.append(f"{verdict} on {', '.join(told)}" if told else f"{verdict} nowhere")
    open_ones = sum(one["verdict"] == "undecided" for one in found)
    tail = f"undecided in {open_ones} of {len(found)}" if open_ones else "nothing is undecided"
    return f"{arm} against {baseline}: {'; '.join(parts)}; {tail}."


def _undecided(one: Comparison, unit: Unit, m: int) -> str:
    found, deciding = one["difference"], one["difference_holm"]
    if identical(one):
        return f"identical in all {one['num_seeds']} seeds"
    text = unit.difference(found)
    if deciding["low"] is None:
        return f"{text}; {one['reason']}"
    if not found["low"] <= 0 <= found["high"]:
        text += f", but the interval corrected for {m} comparisons, {unit.interval(deciding)}, holds 0"
    if one["minimum_detectable"] is not None:
        text += f"; this study could have seen {unit.amount(one['minimum_detectable'])}"
    return text


def _at_chance(one: Comparison, chance: Score) -> bool:
    lows = [one[arm]["low"] for arm in ("arm_score", "baseline_score")]
    return all(low is not None and low <= chance["value"] for low in lows)


def _plural(verdict: str, count: int) -> str:
    if verdict == "undecided":
        return f"{'is' if count == 1 else 'are'} undecided"
    return verdict if count == 1 else {"helps": "help", "hurts": "hurt"}[verdict]
