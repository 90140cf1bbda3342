"""The grid is searched on validation scores only, with separate seeds."""

from __future__ import annotations

import json

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study import arm_roles
from vision_mtl.study.arms import read_arms
from vision_mtl.study.grid_search import choose, plan_candidates, tuning_seeds, validation_score
from vision_mtl.study.plan import Plan

GRID = {"finetune.optim.learning_rate": [0.1, 0.2, 0.3]}


def test_the_best_on_validation_is_chosen_whatever_the_test_says(tmp_path, written) -> None:
    arms = read_arms({"a": {"stages": ["finetune"], "grid": GRID}}, arm_roles())
    plan: Plan = written({"a": ["finetune"]}, [1.0], [0]).plan
    plan.nodes.clear()
    seeds = tuning_seeds([3, 4], 2)
    assert not {3, 4} & set(seeds)
    trials = plan_candidates(plan, arms, [0.5, 1.0], seeds)
    assert len(plan.nodes) == 3 * 2 * 2 and [len(keys) for keys in trials["a", 0.5]] == [2, 2, 2]
    validation = {
        0.5: {0.1: [0.9, 0.1], 0.2: [0.6, 0.6], 0.3: [0.5, 0.5]},
        1.0: {0.1: [0.7, 0.7], 0.2: [0.7, 0.7], 0.3: [0, 0]},
    }
    for node in plan.nodes.values():
        rate = node.options["optim"]["learning_rate"]
        score = validation[node.fraction][rate][seeds.index(node.seed)]
        folder = tmp_path / node.folder
        folder.mkdir(parents=True)
        metrics = {"validation": {"score": score}, "tasks": {"t": {"accuracy": {"value": 1 - score}}}}
        (folder / "result.json").write_text(json.dumps({"stage": "finetune", "metrics": metrics}))
    chosen = choose(plan, arms, trials, tmp_path)
    assert chosen["a", 0.5]["options"] == {"finetune.optim.learning_rate": 0.2}
    assert chosen["a", 1.0]["options"] == {"finetune.optim.learning_rate": 0.1}  # the first of a tie
    assert [row["validation"] for row in chosen["a", 0.5]["tried"]] == pytest.approx([0.5, 0.6, 0.5])


def test_without_validation_images_nothing_is_chosen(tmp_path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"stage": "finetune", "metrics": {}}))
    with pytest.raises(UserError, match=r"chosen on validation images, and .* has none"):
        validation_score(tmp_path, 1.0)


def test_a_probe_is_validated_at_its_fraction(tmp_path) -> None:
    def tasks(*scores: float) -> dict:
        return {f"t{i}": {"chosen": {"linear": {"val_score": score}}} for i, score in enumerate(scores)}

    metrics = {"tasks": tasks(0.8, 0.6), "fractions": {"0.1": {"tasks": tasks(0.2, 0.4)}}}
    (tmp_path / "result.json").write_text(json.dumps({"stage": "probe", "metrics": metrics}))
    assert validation_score(tmp_path, 0.1) == pytest.approx(0.3)
    assert validation_score(tmp_path, 1.0) == pytest.approx(0.7)
