"""Small records of a study, as the report takes them, with verdicts by `evaluation.families`."""

from types import SimpleNamespace

import numpy as np

from vision_mtl.evaluation.comparisons import Comparison, compare
from vision_mtl.evaluation.crossed import spread
from vision_mtl.evaluation.families import family
from vision_mtl.study.independence import judged_apart

SEEDS, IMAGES = 6, 40


def score(values: np.ndarray) -> dict:
    of = spread(values, np.arange(values.shape[1]))
    low, high = (float(end) if np.isfinite(end) else None for end in of.interval())
    return {"value": float(of.mean), "low": low, "high": high, "n": values.shape[1], "num_clusters": of.num_clusters}


def task(kind: str = "single_label", metric: str = "accuracy") -> dict:
    return {"kind": kind, "metric": metric, "n": IMAGES, "num_clusters": IMAGES, "num_classes": 3}


def run(arm: str, seed: int, tasks: dict) -> dict:
    scores = {name: {"accuracy": 0.5 + seed / 100, "macro_f1": None} for name in tasks}
    return {
        "folder": f"runs/{arm}-{seed}",
        "stage": "finetune",
        "arms": [arm],
        "fraction": 0.1,
        "seed": seed,
        "seconds": 61.0,
        "wall_seconds": 4000.0,
        "images_seen": 12800,
        "resumes": 1,
        "scores": scores,
        "warnings": ["slow disk"] if seed == 0 else [],
    }


def newer(comparisons: list[Comparison], apart: dict[str, list[str]]) -> list[dict]:
    """Return the comparisons with what studies add to them, as `stages/study.py` does."""
    arms = {one.arm: SimpleNamespace(not_independent=tuple(apart.get(one.arm, ()))) for one in comparisons}
    arms |= {one.baseline: SimpleNamespace(not_independent=()) for one in comparisons}
    probability = {"value": 0.75, "low": 0.5, "high": 1.0, "n": SEEDS, "num_clusters": SEEDS}
    return [row | {"scope": "", "probability_of_improvement": probability} for row in judged_apart(comparisons, arms)]


def study(
    effects: dict[str, float],
    fractions: tuple[float, ...] = (0.1, 1.0),
    tasks: dict[str, dict] | None = None,
    num_seeds: int = SEEDS,
    rope: float | None = None,
    not_independent: dict[str, list[str]] | None = None,
) -> dict:
    """Return a record whose arms differ from the first, the baseline, by the given effects; 0 is an exact copy.

    With `rope` or `not_independent` (arm -> tasks) the record has what studies record since these options.
    """
    tasks = tasks or {"pets": task()}
    random, (baseline, *others) = np.random.default_rng(0), effects
    scores, comparisons, before = [], [], []
    for name in tasks:
        for fraction in fractions:
            base = 0.5 + 0.1 * random.standard_normal((num_seeds, IMAGES))
            values = {baseline: base}
            for arm in others:
                noise = 0.02 * random.standard_normal((num_seeds, IMAGES)) if effects[arm] else 0.0
                values[arm] = base + effects[arm] + noise
            for arm, found in values.items():
                seeds = [{"seed": seed, "value": float(value)} for seed, value in enumerate(found.mean(1))]
                scores.append(
                    {
                        "task": name,
                        "fraction": fraction,
                        "arm": arm,
                        "score": score(found),
                        "num_seeds": num_seeds,
                        "num_labelled": round(270 * fraction),
                        "chance": score(base - 0.2),
                        "by_seed": seeds,
                    }
                )
            for arm in others:
                pair = {"task": name, "fraction": fraction, "arm": arm, "baseline": baseline}
                comparisons.append(compare(values[arm], base, np.arange(IMAGES), rope=rope, **pair))
                before.append(pair | {"minimum_detectable": 0.031})
    arms = {
        arm: {
            "stages": ["pretrain", "finetune"],
            "note": "a note",
            "options": {"finetune": {"optim.steps": 400, "data.unlabelled": ["folder/x"]}},
            "chosen": [
                {
                    "fraction": 0.1,
                    "options": {"optim.learning_rate": 0.003},
                    "tried": [
                        {"options": {"optim.learning_rate": rate}, "validation": rate} for rate in (0.001, 0.003)
                    ],
                }
            ],
        }
        for arm in effects
    }
    apart = not_independent or {}
    for arm in apart:
        arms[arm] |= {"not_independent": apart[arm], "starts": ["weights net, trained on photographs"]}
    runs = [run(arm, seed, tasks) for arm in effects for seed in range(2)]
    return {
        "name": "does_it_help",
        "question": "Does it help?",
        "seeds": list(range(num_seeds)),
        "fractions": list(fractions),
        "metric": "accuracy",
        "tasks": tasks,
        "arms": arms,
        "scores": scores,
        "comparisons": family(comparisons) if rope is None and not apart else newer(comparisons, apart),
        "before": {"expected_std": 0.02, "rows": before},
        "runs": runs,
        "cost": {
            "num_runs": 30,
            "num_runs_unshared": 44,
            "training_seconds": 12345.6,
            "wall_seconds": 15000.0,
            "images_seen": 1234567,
            "num_jobs": 2,
        },
        "environment": {"command": ["train.py", "--stage", "study"], "cpus": 2, "versions": {"torch": "2.13.0"}},
        "pictures": [],
        "warnings": ["a warning"],
        "config": "arms:\n  a: {}\n",
    }
