"""Does the 95 % interval of a paired difference hold the truth in 95 % of cases? How often is chance called an effect?

    python benchmarks/statistics.py [--draws 10000]

Differences are drawn over seeds × the same test images: `value = effect + seed + image + rest`. The seeds' and the
images' effects follow one law (normal, t with 3 degrees of freedom, lognormal; all centred) and share the variance of
the mean between them: `images` is the images' part. `hits` are two classifiers, right or wrong on each image. Effects
are 0, 1 and 4 standard errors; for hits 0, 2 and 10 points of accuracy. A/A families compare three arms with a baseline
on four tasks, all arms alike. `clusters` are intervals of one score over few, unequal or skewed clusters, beside the
percentile bootstrap over clusters that they replaced; `unequal` are differences over unequal clusters of test images,
beside G - 1 degrees of freedom; `ceiling` are accuracies near 1; `collapse` are arms of equal mean of which one
collapses in some seeds; `gains` are one-sided p-values of `discover` at 2.5 % for gains without a mean. `equivalent` is
how often arms are called equivalent that are equal, half of the rope apart, or just further apart; `unseen` are arms
that differ on few images, always the same ones, which a test set may lack. Prints tables in Markdown, writes
`benchmarks/results/statistics.json`, and exits with 1 unless coverage of normal, t3 and hits lies within 93 to 97.5 %
in every row and that of other rows is high enough, no false-call rate of a family is above 5 % and no rate of false
`equivalent` above 2.5 % beyond chance, and sign-flip p-values equal scipy's. A few minutes on one core.
"""
# R resamples, D draws, S seeds, n images, A arms, T tasks

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
from scipy.stats import norm, permutation_test, t, ttest_1samp

from benchmarks.equivalence import ROPES, equivalent, unseen
from benchmarks.laws import CHUNK, chunks, law_of, spread_of
from benchmarks.record import write
from vision_mtl.discovery.kinds import gain_p_values
from vision_mtl.evaluation.crossed import Spread, spread
from vision_mtl.evaluation.scores import Score, accuracy_score, proportion, ratio_skill
from vision_mtl.evaluation.sign_flip import sign_flip

SEED = 0
BOUNDS = (0.93, 0.975)
FALSE_CALLS = 0.05
CLUSTERED = 0.92  # least coverage over clusters, where a row's own error is up to half a point
SEEDS = (5, 10)
IMAGES = 100
SHARES = (0.0, 0.25, 0.5, 0.75, 0.95)
LAWS = ("normal", "t3", "lognormal", "hits")
EFFECTS = {"none": (0.0, 0.0), "small": (1.0, 0.02), "large": (4.0, 0.1)}  # standard errors; accuracy of hits
REST = 0.2  # variance that the rest adds to the mean, whose other parts sum to 1
RESTS = (0.0, 1.0)  # beside it, where intervals are compared
ACCURACY = 0.75  # of the baseline, for hits
HIT_VARIANCE = 0.02  # of the mean, on the scale of the probit
ARMS, TASKS = 3, 4
RESAMPLES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    start, random = time.perf_counter(), np.random.default_rng(SEED)
    tables = {
        "coverage": [coverage(random, draws, *case) for case in itertools.product(LAWS, SEEDS, SHARES, EFFECTS)],
        "methods": [methods(random, draws, *case) for case in itertools.product(LAWS[:2], SEEDS, RESTS, SHARES[::2])],
        "skew": [skew(random, draws, *case) for case in itertools.product(LAWS[:3], SEEDS, (0.0, 0.5))],
        "families": [families(random, draws, *case) for case in itertools.product(LAWS, SEEDS)],
        "clusters": [
            *map(lambda case: skills(random, draws // 5, *case), itertools.product((7, 20, 41), (0.5, 1.0, 1.5))),
            *map(lambda case: accuracies(random, draws // 5, *case), itertools.product((10, 41), (0.7, 0.9, 0.97))),
        ],
        "unequal": [unequal(random, draws // 50, *case) for case in itertools.product((10, 20, 41), (0.5, 1.0, 1.5))],
        "ceiling": [
            ceiling(random, draws // 5, *case) for case in itertools.product((25, 100), SEEDS, (0.9, 0.95, 0.98))
        ],
        "collapse": [collapse(random, draws, *case) for case in itertools.product(SEEDS, (0.05, 0.1, 0.2))],
        "gains": [gains(random, draws, *case) for case in itertools.product((10, 41, 100), (0.0, 0.5, 1.0))],
        "equivalent": [
            equivalent(random, draws // 5, *case)
            for case in itertools.product(("normal", "t3"), (5, 8, 20), (300, 1000), ROPES)
        ],
        "unseen": [unseen(random, draws, *case) for case in itertools.product((5, 8), (100, 300, 1000))],
    }
    largest = largest_difference_to_scipy(random)
    for name, rows in tables.items():
        show(name, rows)
    failures = [row for rows in tables.values() for row in rows if not row.get("within", True)]
    seconds = time.perf_counter() - start
    print(f"\nsign-flip p-values differ from scipy's by {largest:.1e} at most; {len(failures)} rows out of bounds")
    print(f"{draws} draws a row, {seconds:.0f} s")
    head = {"seed": SEED, "draws": draws, "images": IMAGES, "rest": REST, "seconds": seconds}
    write("statistics", {**head, "sign_flip_to_scipy": largest, **tables})
    sys.exit(1 if failures or largest > 1e-12 else 0)


def coverage(
    random: np.random.Generator, draws: int, law: str, seeds: int, share: float, effect: str
) -> dict[str, Any]:
    """How often the interval holds the true mean; within bounds wherever the law is one that they are stated for."""
    held = np.concatenate(
        [
            holds(*spread_of(values).interval(), truth)
            for values, truth in drawn(random, draws, law, seeds, share, effect)
        ]
    )
    rate = float(held.mean())
    row = {"law": law, "seeds": seeds, "images": share, "effect": effect, "coverage": rate}
    return {**row, "within": law == "lognormal" or in_bounds(rate)}


def methods(random: np.random.Generator, draws: int, law: str, seeds: int, rest: float, share: float) -> dict[str, Any]:
    """Coverage of the intervals that were not taken, beside ours, on the same draws."""
    found: dict[str, list[np.ndarray]] = {"ours": [], "t over seeds": [], "crossed bootstrap": [], "wider of both": []}
    for values, truth in drawn(random, draws, law, seeds, share, "none", rest):
        one = spread_of(values)
        over_seeds, resampled = t_interval(one), crossed_bootstrap(values, random)
        wider = (np.minimum(over_seeds[0], resampled[0]), np.maximum(over_seeds[1], resampled[1]))
        for name, ends in zip(found, (one.interval(), over_seeds, resampled, wider), strict=True):
            found[name].append(holds(*ends, truth))
    rates = {name: float(np.concatenate(held).mean()) for name, held in found.items()}
    return {"law": law, "seeds": seeds, "rest": rest, "images": share, **rates, "within": in_bounds(rates["ours"])}


def skew(random: np.random.Generator, draws: int, law: str, seeds: int, share: float) -> dict[str, Any]:
    """What `guard_skew` brings, and costs: coverage, misses on either side, width; no rest, which hides skewness."""
    ends: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for values, _ in drawn(random, draws, law, seeds, share, "none", rest=0.0):
        one = spread_of(values)
        for guard, kept in ends.items():
            kept.append(np.stack(one.interval(guard_skew=guard)))
    (low, high), (guarded_low, guarded_high) = (np.concatenate(kept, axis=1) for kept in ends.values())
    return {
        "law": law,
        "seeds": seeds,
        "images": share,
        "coverage": float(holds(low, high, 0).mean()),
        "too low": float((high < 0).mean()),
        "too high": float((low > 0).mean()),
        "guarded coverage": float(holds(guarded_low, guarded_high, 0).mean()),
        "guarded width / width": float(np.median((guarded_high - guarded_low) / (high - low))),
    }


def families(random: np.random.Generator, draws: int, law: str, seeds: int) -> dict[str, Any]:
    """The share of A/A families with any call, after Holm and without it. Holm calls any if its first step does."""
    called: dict[str, list[np.ndarray]] = {"Holm": [], "uncorrected": []}
    for count in chunks(draws, CHUNK // (ARMS * TASKS)):
        arms = arms_alike(random, (count, ARMS + 1, TASKS, seeds, IMAGES), law)
        one = spread_of(arms[:, 1:] - arms[:, :1])  # (count, A, T)
        for name, level in (("Holm", 1 - 0.05 / (ARMS * TASKS)), ("uncorrected", 0.95)):
            called[name].append(~holds(*one.interval(level), 0).all((1, 2)))
    calls, plain = (proportion(np.concatenate(kept)) for kept in called.values())
    ends = {"false calls": calls.value, "low": calls.low, "high": calls.high, "uncorrected": plain.value}
    return {"law": law, "seeds": seeds, **ends, "within": calls.low is not None and calls.low <= FALSE_CALLS}


def skills(random: np.random.Generator, draws: int, clusters: int, log_std: float) -> dict[str, Any]:
    """Coverage of a skill over clusters whose errors differ by a lognormal factor; every cluster is one photograph."""
    held: dict[str, list[bool]] = {"ours": [], "bootstrap": []}
    for _ in range(draws):
        reference = random.lognormal(0, log_std, clusters)
        model = reference * (0.5 + 0.5 * random.lognormal(-0.125, 0.5, clusters))  # of mean 1, skewed
        for name, (low, high) in (
            ("ours", ends_of(ratio_skill(model, reference, np.arange(clusters)))),
            ("bootstrap", cluster_bootstrap(model, reference, random)),
        ):
            held[name].append(low <= 0 <= high)
    return cluster_row("skill", clusters, f"log-sd {log_std}", held)


def accuracies(random: np.random.Generator, draws: int, clusters: int, accuracy: float) -> dict[str, Any]:
    """Coverage of an accuracy over clusters of about five images whose hits correlate by .3."""
    held: dict[str, list[bool]] = {"ours": [], "bootstrap": []}
    for _ in range(draws):
        sizes = np.maximum(1, random.lognormal(1.5, 0.5, clusters).round().astype(int))
        share = random.beta(accuracy * 0.7 / 0.3, (1 - accuracy) * 0.7 / 0.3, clusters)
        group = np.repeat(np.arange(clusters), sizes)
        correct = random.random(len(group)) < share[group]
        hits = np.bincount(group, correct, clusters)
        low, high = ends_of(accuracy_score(correct, group))
        held["ours"].append(low <= accuracy <= high)
        low, high = cluster_bootstrap(hits, sizes, random)
        held["bootstrap"].append(low <= 1 - accuracy <= high)
    return cluster_row("accuracy", clusters, f"{accuracy:g}", held)


def cluster_row(what: str, clusters: int, law: str, held: dict[str, list[bool]]) -> dict[str, Any]:
    """Coverage of both intervals on the same draws."""
    rates = {name: float(np.mean(kept)) for name, kept in held.items()}
    return {"score": what, "clusters": clusters, "law": law, **rates, "within": rates["ours"] >= CLUSTERED}


def cluster_bootstrap(part: np.ndarray, whole: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of 1 - sum(part) / sum(whole) over resampled clusters."""
    count = len(part)
    weights = random.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    low, high = np.quantile(1 - (weights @ part) / (weights @ whole), [0.025, 0.975])
    return float(low), float(high)


def unequal(random: np.random.Generator, draws: int, clusters: int, log_std: float) -> dict[str, Any]:
    """Coverage of differences over clusters of test images whose sizes are lognormal; 5 seeds."""
    held, plain, effective = [], [], []
    for _ in range(draws):
        sizes = np.maximum(1, random.lognormal(1, log_std, clusters).round().astype(int))
        group = np.repeat(np.arange(clusters), sizes)
        values = random.standard_normal((50, 1, clusters))[..., group] + 0.1 * random.standard_normal((50, 5, 1))
        one = spread(values, group)
        effective.append(len(group) ** 2 / (sizes**2).sum())
        held.append(holds(*one.interval(), 0).mean())
        plain.append(holds(*replace(one, image_degrees=clusters - 1.0).interval(), 0).mean())
    row = {"clusters": clusters, "log-sd of size": log_std, "effective": float(np.median(effective))}
    rates = {"ours": float(np.mean(held)), "G - 1": float(np.mean(plain))}
    return {**row, **rates, "within": rates["ours"] >= BOUNDS[0]}


def ceiling(random: np.random.Generator, draws: int, images: int, seeds: int, accuracy: float) -> dict[str, Any]:
    """Coverage of one arm's accuracy near 1, and the share of intervals without width if no cluster is added."""
    over_seeds, over_images = HIT_VARIANCE * 0.5 * seeds, HIT_VARIANCE * 0.5 * images
    scale = np.sqrt(1.5 + over_seeds + over_images)
    parts = [
        random.standard_normal((draws, *shape)) * np.sqrt(variance)
        for shape, variance in (((1, images), 1 + over_images), ((seeds, 1), over_seeds), ((seeds, images), 0.5))
    ]
    values = (norm.ppf(accuracy) * scale + parts[0] + parts[1] + parts[2] > 0).astype(np.float64)
    added, plain = spread(values, np.arange(images), is_share=True), spread(values, np.arange(images))
    rates = {"ours": float(holds(*added.interval(), accuracy).mean())}
    rates |= {"nothing added": float(holds(*plain.interval(), accuracy).mean())}
    low, high = plain.interval()
    rates |= {"without width": float((low == high).mean())}
    return {"images": images, "seeds": seeds, "accuracy": accuracy, **rates, "within": rates["ours"] >= BOUNDS[0]}


def collapse(random: np.random.Generator, draws: int, seeds: int, chance: float) -> dict[str, Any]:
    """False calls between arms of equal mean of which one loses half a point of accuracy in some seeds."""
    lost = random.random((draws, seeds, 1)) < chance
    values = 0.5 * (chance - lost) + 0.02 * random.standard_normal((draws, seeds, 1)) + np.zeros((1, 1, 3))
    one = spread(values, np.arange(3))
    calls = {name: float((~holds(*one.interval(guard_skew=guard), 0)).mean()) for name, guard in
             (("false calls", False), ("guarded", True))}  # fmt: skip
    return {"seeds": seeds, "collapse": chance, **calls, "no collapse seen": float((~lost).all((1, 2)).mean())}


def gains(random: np.random.Generator, draws: int, clusters: int, log_std: float) -> dict[str, Any]:
    """False `learnable` at 2.5 %: gains of mean 0 with a long tail of losses (normal for log-sd 0)."""
    if log_std:
        totals = np.exp(log_std**2 / 2) - random.lognormal(0, log_std, (clusters, draws))
    else:
        totals = random.standard_normal((clusters, draws))
    rates = {
        "ours": np.array(gain_p_values(totals, np.arange(clusters))),
        "t": ttest_1samp(totals, 0, alternative="greater").pvalue,
    }
    return {"clusters": clusters, "log-sd": log_std, **{name: float((p < 0.025).mean()) for name, p in rates.items()}}


def ends_of(score: Score) -> tuple[float, float]:
    assert score.low is not None and score.high is not None
    return score.low, score.high


def drawn(
    random: np.random.Generator, draws: int, law: str, seeds: int, share: float, effect: str, rest: float = REST
) -> Iterator[tuple[np.ndarray, float]]:
    """Differences (D, S, n) in chunks, and their true mean."""
    shift, points = EFFECTS[effect]
    for count in chunks(draws, CHUNK):
        if law == "hits":
            yield hits(random, count, seeds, share, points), points
            continue
        seed = law_of(random, law, (count, seeds, 1)) * np.sqrt((1 - share) * seeds)
        image = law_of(random, law, (count, 1, IMAGES)) * np.sqrt(share * IMAGES)
        other = random.standard_normal((count, seeds, IMAGES)) * np.sqrt(rest * seeds * IMAGES)
        yield shift + seed + image + other, shift


def hits(random: np.random.Generator, count: int, seeds: int, share: float, points: float) -> np.ndarray:
    """(D, S, n) in -1, 0, 1: an arm's hits minus its baseline's. What makes an image hard is shared by both."""
    over_seeds, over_images = HIT_VARIANCE * (1 - share) * seeds, HIT_VARIANCE * share * IMAGES
    hard = random.standard_normal((count, 1, IMAGES))
    scale = np.sqrt(1 + over_seeds + over_images + 0.5)
    found = []
    for accuracy in (ACCURACY + points, ACCURACY):
        seed = random.standard_normal((count, seeds, 1)) * np.sqrt(over_seeds)
        image = random.standard_normal((count, 1, IMAGES)) * np.sqrt(over_images)
        other = random.standard_normal((count, seeds, IMAGES)) * np.sqrt(0.5)
        found.append(norm.ppf(accuracy) * scale + hard + seed + image + other > 0)
    return found[0].astype(np.float64) - found[1]


def arms_alike(random: np.random.Generator, shape: tuple[int, ...], law: str) -> np.ndarray:
    """Values (D, A, T, S, n) of arms between which nothing is to choose."""
    seed_law = "normal" if law == "hits" else law
    seed = law_of(random, seed_law, (*shape[:-1], 1))
    image = law_of(random, seed_law, (*shape[:-2], 1, shape[-1])) * np.sqrt(shape[-1] / shape[-2] / 2)
    values = seed + image + random.standard_normal(shape, np.float32) * np.sqrt(shape[-1] * REST)
    return (values > 0).astype(np.float64) if law == "hits" else values


def in_bounds(rate: float) -> bool:
    return BOUNDS[0] <= rate <= BOUNDS[1]


def holds(low: np.ndarray, high: np.ndarray, truth: float) -> np.ndarray:
    return (low <= truth) & (truth <= high)


def t_interval(one: Spread) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval over the seeds' means, which takes the test images as given."""
    reach = t.isf(0.025, one.num_seeds - 1) * one.seed_error
    return one.mean - reach, one.mean + reach


def crossed_bootstrap(values: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval over resampled seeds × resampled images (Owen's pigeonhole bootstrap)."""
    seeds, images = values.shape[1:]
    by_seed = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds  # (R, S)
    by_image = random.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images  # (R, n)
    weights = (by_seed[:, :, None] * by_image[:, None]).reshape(RESAMPLES, -1)  # (R, S n)
    low, high = np.quantile(values.reshape(len(values), -1) @ weights.T, [0.025, 0.975], axis=1)
    return low, high


def largest_difference_to_scipy(random: np.random.Generator) -> float:
    """Between exact sign-flip p-values, ties and zeros among the differences."""
    sets = [np.round(random.normal(size=size) + shift, 1) for size in (3, 5, 8, 10) for shift in (0, 0.5, 2, 0.1)]
    exact = [permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue for x in sets]
    return float(max(abs(sign_flip(x) - p) for x, p in zip(sets, exact, strict=True)))


def show(name: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    main()
