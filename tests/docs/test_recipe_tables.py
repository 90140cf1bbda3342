"""The tables of docs/which_recipe.md show gain, interval, verdict and cost of a study."""

from __future__ import annotations

from benchmarks import tables, tables_studies


def score(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "n": 9, "num_clusters": 9}


def comparison(task: str, verdict: str, independent: bool = True) -> dict:
    return {
        **{"task": task, "fraction": 0.1, "arm": "imagenet", "baseline": "scratch", "verdict": verdict},
        **{"arm_score": score(0.9), "baseline_score": score(0.8), "difference": score(0.1, 0.05, 0.15)},
        **{"difference_holm": score(0.1, 0.02, 0.18), "minimum_detectable": 0.03, "independent": independent},
        "probability_of_improvement": score(0.75, 0.5, 1.0),
    }


STUDY = {
    "arms": {"scratch": {}, "imagenet": {"starts": ["weights of lite0"]}},
    "scores": [
        {
            **{"task": "pets", "fraction": 0.1, "arm": "imagenet", "num_labelled": 27, "num_validation": 9},
            **{"score": score(0.9), "independent": True},
        },
        {"task": "objects", "fraction": 0.1, "arm": "imagenet", "score": score(0.7), "independent": False},
    ],
    "comparisons": [comparison("pets", "helps"), comparison("objects", "equivalent", False)],
    "improvements": [
        {
            **{"arm": "imagenet", "baseline": "scratch", "fraction": 0.1, "tasks": ["pets"]},
            "probability_of_improvement": score(0.75),
        }
    ],
    "arm_costs": [
        {
            **{"arm": "imagenet", "fraction": 0.1, "images_seen": 12800.0, "steps": 200.0, "forward_rows": None},
            **{
                "training_seconds": 90.0,
                "teacher_seconds": 0.0,
                "other_seconds": 30.0,
                "backbone_parameters": 3_400_000,
            },
        }
    ],
}


def test_a_row_for_each_task_and_one_for_all() -> None:
    _, pets, objects, overall = tables_studies.recipes(STUDY)
    assert pets == ["imagenet", "scratch", "pets", "27 + 9", ".900", "**+.100 (+.050 to +.150)**", "+.020 to +.180",
                    "75 % (50 to 100)", "helps"]  # fmt: skip
    assert objects[2] == "objects †" and objects[-1] == "equivalent" and "**" not in objects[5]
    assert overall[2:4] == ["*1 task*", "10 % labels"] and overall[-2] == "*75 %*"


def test_scores_of_a_recipe_stand_in_one_row_with_their_verdicts() -> None:
    one_start = comparison("pets", "helps (this set of pretrained weights)")
    header, row = tables_studies.scores({**STUDY, "comparisons": [one_start]})
    assert header == ["recipe", "pets", "objects", "minutes", "compared with"]
    assert row == ["imagenet", ".900 helps", ".700 †", "2", "scratch"]


def test_costs_say_what_an_arm_starts_from() -> None:
    _, row = tables_studies.costs(STUDY)
    assert row == [
        "imagenet",
        "10 % labels",
        "weights of lite0",
        "12,800",
        "200",
        "",
        "2 min",
        "0.0 s",
        "30 s",
        "3.4 M",
    ]


def test_the_tables_are_found_by_the_study() -> None:
    for kind in ("study", "scores", "recipes", "costs"):
        found = tables.find_table(f"{kind} what_should_i_do")
        assert found.path == "docs/studies/what_should_i_do/study.json"
        assert found.command == "train.py --config configs/study/what_should_i_do.yaml"
