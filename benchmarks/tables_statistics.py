"""The tables of `statistics.json`: coverage of intervals and rates of false verdicts, in %."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Rows = list[list[str]]  # the first is the header


def coverage(data: Record) -> Rows:
    """Return the lowest and highest coverage over the effects, by law, seeds and the images' share of the variance."""
    rows = data["coverage"]
    shares = list(dict.fromkeys(row["images"] for row in rows))
    found = [["law", "seeds", *(f"share {share:g}" for share in shares)]]
    for law, seeds in dict.fromkeys((row["law"], row["seeds"]) for row in rows):
        by_share = [
            [r["coverage"] for r in rows if (r["law"], r["seeds"], r["images"]) == (law, seeds, s)] for s in shares
        ]
        found.append([law, str(seeds), *(f"{percent(min(values))} to {percent(max(values))}" for values in by_share)])
    return found


def methods(data: Record) -> Rows:
    """Return the coverage of our interval and of those that were rejected, for the normal law."""
    names = ("ours", "t over seeds", "crossed bootstrap", "wider of both")
    rows = [row for row in data["methods"] if row["law"] == "normal"]
    header = ["seeds", "rest", "share", *names]
    return [header, *([f"{r[key]:g}" for key in ("seeds", "rest", "images")] + percents(r, names) for r in rows)]


def skew(data: Record) -> Rows:
    """Return coverage, where it misses, and both with `guard_skew`."""
    header = ["law", "seeds", "share", "coverage", "too low", "too high", "guarded", "width of guarded"]
    keys = ("coverage", "too low", "too high", "guarded coverage")
    return [
        header,
        *(
            [r["law"], str(r["seeds"]), f"{r['images']:g}", *percents(r, keys), f"{r['guarded width / width']:.2f}"]
            for r in data["skew"]
        ),
    ]


def families(data: Record) -> Rows:
    """Return the share of families of equal arms with any false verdict."""
    header = ["law", "seeds", "Holm", "95 % interval", "uncorrected"]
    return [
        header,
        *(
            [
                *(r["law"], str(r["seeds"]), percent(r["false calls"])),
                *(f"{percent(r['low'])} to {percent(r['high'])}", percent(r["uncorrected"])),
            ]
            for r in data["families"]
        ),
    ]


def equivalent(data: Record) -> Rows:
    """Return how often arms are called equivalent, by their true difference; the normal law."""
    rates = {
        "equal": "equal",
        "half": "half the rope apart",
        "outside": "1.1 ropes apart",
        "equal, family": "equal, in a family of 8",
        "any outside, family": "any of 8, all 1.1 ropes apart",
    }
    rows = [row for row in data["equivalent"] if row["law"] == "normal"]
    header = ["seeds", "test images", "rope, points", *rates.values()]
    return [
        header,
        *([str(r["seeds"]), str(r["images"]), f"{100 * r['rope']:g}", *percents(r, list(rates))] for r in rows),
    ]


def simple(part: str, labels: Mapping[str, str], rates: Mapping[str, str]) -> Callable[[Record], Rows]:
    """Return what renders the rows of one part: `labels` as they are, `rates` in %; both map keys to headers."""

    def rows(data: Record) -> Rows:
        header = [*labels.values(), *rates.values()]
        return [header, *([_label(row[key]) for key in labels] + percents(row, list(rates)) for row in data[part])]

    return rows


def percents(row: Record, keys: Sequence[str]) -> list[str]:
    """Return the shares of a row in %."""
    return [percent(row[key]) for key in keys]


def percent(share: float) -> str:
    """Return a share in %, with one digit."""
    return f"{100 * share:.1f}"


def _label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if value >= 1 else f"{value:g}"
    return str(value)


TABLES: dict[str, Callable[[Record], Rows]] = {
    "coverage": coverage,
    "methods": methods,
    "skew": skew,
    "families": families,
    "clusters": simple(
        "clusters",
        {"score": "score", "clusters": "clusters", "law": "law"},
        {"ours": "jackknife", "bootstrap": "percentile bootstrap"},
    ),
    "unequal": simple(
        "unequal",
        {"clusters": "clusters", "effective": "effective"},
        {"ours": "ours", "G - 1": "G - 1 degrees of freedom"},
    ),
    "ceiling": simple(
        "ceiling",
        {"images": "images", "seeds": "seeds", "accuracy": "accuracy"},
        {"ours": "ours", "nothing added": "nothing added", "without width": "of these without any width"},
    ),
    "gains": simple("gains", {"clusters": "clusters", "log-sd": "log-sd"}, {"ours": "ours", "t": "t-test"}),
    "equivalent": equivalent,
    "unseen": simple(
        "unseen", {"seeds": "seeds", "images": "test images"}, {"ours": "ours", "interval alone": "interval alone"}
    ),
    "collapse": simple(
        "collapse",
        {"seeds": "seeds", "collapse": "share of seeds that collapse"},
        {"false calls": "false verdicts", "guarded": "with `guard_skew`", "no collapse seen": "no collapse seen"},
    ),
}
