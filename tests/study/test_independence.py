"""Comparisons that are not independent: corrected apart, marked, and in no count, summary or mean over tasks."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from report_records import study
from report_records import task as record_task

from vision_mtl.core.errors import UserError
from vision_mtl.evaluation.comparisons import compare
from vision_mtl.evaluation.families import family
from vision_mtl.recipes.study import arm_roles, read_ropes
from vision_mtl.study.arms import read_arms
from vision_mtl.study.design import detectable_differences
from vision_mtl.study.improvements import overall_improvements, with_improvements
from vision_mtl.study.independence import MARK, check_tasks, independent_only, judged_apart
from vision_mtl.study.number_format import POINTS
from vision_mtl.study.report import write_report
from vision_mtl.study.verdict_text import headline, how_to_read, summaries, verdict_sentence

ARMS = {"plain": ["finetune"], "known": {"stages": ["finetune"], "not_independent": ["cars"]}}
TASKS = ("pets", "cars", "digits")
PETS = record_task()


def comparisons(**options: object) -> list:
    random = np.random.default_rng(0)
    base = 0.5 + 0.1 * random.random((6, 1000))
    arms = [base + shift + 0.01 * random.standard_normal((6, 1)) for shift in (0.03, 0.03, 0.0)]
    pairs = zip(TASKS, arms, strict=True)
    return [compare(a, base, np.arange(1000), task=t, arm="known", baseline="plain", **options) for t, a in pairs]


def test_each_kind_is_a_family_of_its_own() -> None:
    compared, arms = comparisons(), read_arms(ARMS, arm_roles())
    rows = judged_apart(compared, arms)
    assert [row["task"] for row in rows] == [*TASKS]
    assert [row["independent"] for row in rows] == [True, False, True]
    plain = [{key: row[key] for key in row if key != "independent"} for row in rows]
    assert [plain[0], plain[2]] == family([compared[0], compared[2]]) and [plain[1]] == family([compared[1]])
    assert judged_apart([], arms) == []
    assert independent_only([{"verdict": "helps"}]) == [{"verdict": "helps"}]  # of an older study


def test_an_unknown_task_is_refused() -> None:
    arms = read_arms(ARMS, arm_roles())
    check_tasks(arms, TASKS)
    with pytest.raises(UserError, match=r"study.arms.known.not_independent.*cars"):
        check_tasks(arms, ["pets", "carz"])
    with pytest.raises(UserError, match="not_independent must list tasks; found 'cars'"):
        read_arms({"a": {"stages": ["finetune"], "not_independent": "cars"}}, arm_roles())


def test_the_plan_corrects_the_independent_comparisons_only() -> None:
    pool = SimpleNamespace(
        targets={task: SimpleNamespace(kind="single_label") for task in ("a", "b")},
        cluster=np.arange(400),
        indices=lambda split, task: SimpleNamespace(numpy=lambda: np.arange(400)),
    )
    pair = [("x", "y")]
    whole = detectable_differences(pool, pair, [1.0], 5, 0.02)["rows"]
    apart = detectable_differences(pool, pair, [1.0], 5, 0.02, lambda task, *names: task == "a")["rows"]
    alone = {row["task"]: row["minimum_detectable"] for row in apart}
    assert alone["a"] == alone["b"] < whole[0]["minimum_detectable"]  # two families of one


def test_the_mean_over_tasks_leaves_them_out() -> None:
    scores = {"known": {"pets": [3.0, 4.0], "cars": [9.0, 9.0]}, "plain": {"pets": [1.0, 3.5], "cars": [9.0, 9.0]}}
    collection = SimpleNamespace(by_seed=lambda arm, fraction, task: np.array(scores[arm][task]))
    rows = [
        {"task": task, "arm": "known", "baseline": "plain", "fraction": 0.1, "independent": task == "pets"}
        for task in ("pets", "cars")
    ]
    found = with_improvements(rows, collection)
    assert [row["probability_of_improvement"]["value"] for row in found] == [0.75, 0.5]
    (overall,) = overall_improvements(rows, collection)
    assert overall["tasks"] == ["pets"] and overall["probability_of_improvement"]["value"] == 0.75


def test_texts_mark_them_and_count_them_apart() -> None:
    record = study({"a": 0.0, "b": 0.1}, tasks={"pets": PETS, "cars": PETS}, not_independent={"b": ["cars"]})
    compared = record["comparisons"]
    counts = "Of 2 comparisons, 2 help, 0 hurt and 0 are undecided."
    assert headline(compared) == f"{counts} 2 more are not independent ({MARK})."
    assert summaries(compared) == ["b against a: helps on pets (10 %, all labels); hurts on no task; none undecided."]
    ends = {one["task"]: verdict_sentence(one, POINTS, 2).text[-1] for one in compared}
    assert ends == {"pets": "s", "cars": MARK}
    told = " ".join(how_to_read(record))
    assert "2 comparisons, corrected apart" in told and "family of 2 comparisons" in told
    assert headline([one for one in compared if one["task"] == "cars"]) == f"No comparison is independent ({MARK})."


def test_the_report_marks_them_everywhere(tmp_path: Path) -> None:
    record = study({"a": 0.0, "b": 0.1}, tasks={"pets": PETS, "cars": PETS}, not_independent={"b": ["cars"]})
    for row in record["scores"]:
        row["independent"] = (row["arm"], row["task"]) != ("b", "cars")
    record["improvements"] = [
        {"arm": "b", "baseline": "a", "fraction": 0.1, "tasks": ["pets"],
         "probability_of_improvement": {"value": 0.75, "low": 0.5, "high": 1.0}}
    ]  # fmt: skip
    write_report(record, tmp_path)
    page, text = ((tmp_path / name).read_text("utf-8") for name in ("report.html", "report.md"))
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    marked = [row for row in rows if MARK in row]
    assert len([row for row in marked if "<td>cars</td>" in row]) == 2 + 2 + 2  # comparisons, scores, design
    assert not [row for row in marked if "<td>pets</td>" in row]
    assert "75 [50, 100]" in page.replace("\u00a0", " ") and "75 [50, 100]" in text
    assert "weights net, trained on photographs" in text and "not independent on" in text
    comparisons, scores = ((tmp_path / f"tables/{n}.csv").read_text("utf-8") for n in ("comparisons", "scores"))
    assert comparisons.count("False") >= 2 and "independent" in scores.splitlines()[0]
    assert "0.75" in (tmp_path / "tables/improvements.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        (0.01, {"pets": 0.01, "age": None}),
        (0.0, {"pets": 0.0, "age": None}),
        ({"age": 2}, {"pets": 0.01, "age": 2}),
        ({"pets": 0.03}, {"pets": 0.03, "age": None}),
    ],
)
def test_a_rope_is_of_scores_between_0_and_1_unless_it_names_a_task(rope: object, expected: dict) -> None:
    assert read_ropes(rope, {"pets": "single_label", "age": "regression"}) == expected


def test_a_rope_out_of_range_is_refused() -> None:
    kinds = {"pets": "single_label", "age": "regression"}
    with pytest.raises(UserError, match=r"must lie in \[0, 1\).*found 2.*\{TASK: 2\}"):
        read_ropes(2, kinds)
    with pytest.raises(UserError, match="found -1 for task age"):
        read_ropes({"age": -1}, kinds)
    with pytest.raises(UserError, match="pets"):
        read_ropes({"pet": 0.1}, kinds)
