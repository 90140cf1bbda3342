"""Plans: equal runs are merged, a key depends on all that a run does, references point to earlier stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study import arm_roles
from vision_mtl.study.arms import merge, read_arms
from vision_mtl.study.plan import Plan, fill, references

TASKS = {"pets": {"source": "p"}, "cars": {"source": "c"}}


def compose(stage: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    full = merge({"tasks": TASKS}, options)
    return full, json.dumps(full, sort_keys=True)


def planned(arms: dict[str, Any], fractions: list[float], seeds: list[int], share: bool = True) -> tuple[Plan, dict]:
    plan = Plan(compose, TASKS, fractions, arm_roles(), share)
    recipes = read_arms(arms, arm_roles())
    finals = {(n, f, s): plan.add(arm, f, s) for n, arm in recipes.items() for f in fractions for s in seeds}
    return plan, finals


def test_one_pretraining_serves_every_arm_and_fraction() -> None:
    arms = {
        "plain": ["finetune"],
        "pretrained": ["pretrain", "finetune"],
        "slower": {"extends": "pretrained", "finetune": {"optim": {"learning_rate": 0.1}}},
        "probe": ["pretrain", "probe"],
    }
    plan, finals = planned(arms, [0.1, 1.0], [0, 1, 2])
    stages = [node.stage for node in plan.nodes.values()]
    assert stages.count("pretrain") == 3  # a seed each
    assert stages.count("finetune") == 3 * 2 * 3  # arms x fractions x seeds
    assert stages.count("probe") == 3  # all fractions at once
    assert plan.num_requested == 3 * 2 * (1 + 2 + 2 + 2)
    pretrain = next(node for node in plan.nodes.values() if node.stage == "pretrain" and node.seed == 1)
    assert pretrain.arms == ["pretrained", "slower", "probe"] and pretrain.level == 0
    (key,) = finals["slower", 0.1, 1]
    assert plan.nodes[key].start == pretrain.key and plan.nodes[key].level == 1
    assert plan.nodes[key].options["finetune"] == {"label_fraction": 0.1}
    assert plan.nodes[finals["probe", 0.1, 1][0]].options["probe"] == {"fractions": [0.1, 1.0], "heads": False}
    assert [len(level) for level in plan.levels()] == [3 + 6, 12 + 3]


def test_without_sharing_each_arm_runs_its_own() -> None:
    arms = {"a": ["pretrain", "finetune"], "b": ["pretrain", "finetune"]}
    assert len(planned(arms, [1.0], [0, 1])[0].nodes) == 4
    plan, finals = planned(arms, [1.0], [0, 1], share=False)
    assert len(plan.nodes) == 8 == plan.num_requested
    assert finals["a", 1.0, 0] != finals["b", 1.0, 0]


def test_a_key_changes_with_what_a_run_depends_on() -> None:
    def last(**pretrain: Any) -> str:
        arm = {"stages": ["pretrain", "finetune"], "pretrain": pretrain}
        return planned({"a": arm}, [1.0], [0])[1]["a", 1.0, 0][0]

    assert last(x=1) == last(x=1) != last(x=2)  # it starts from another pretraining


def test_separate_runs_the_last_stage_for_each_task() -> None:
    plan, finals = planned({"a": {"stages": ["pretrain", "finetune"], "separate": True}}, [1.0], [5])
    nodes = [plan.nodes[key] for key in finals["a", 1.0, 5]]
    assert [list(node.options["tasks"]) for node in nodes] == [["pets"], ["cars"]]
    assert nodes[0].start == nodes[1].start and plan.nodes[nodes[0].start].options["tasks"] == TASKS


def test_seeds_may_be_fixed_or_offset() -> None:
    arms = {
        "once": {"stages": ["pretrain", "finetune"], "pretrain": {"seed": 7}},
        "control": {"stages": ["finetune"], "seed_offset": 100},
    }
    plan, finals = planned(arms, [1.0], [0, 1])
    assert [node.seed for node in plan.nodes.values() if node.stage == "pretrain"] == [7]
    assert plan.nodes[finals["control", 1.0, 1][0]].seed == 101


def test_references_are_the_folders_of_earlier_stages() -> None:
    selection = {"pretrain": {"selection": "{discover}/selection.parquet"}}
    arm = {"stages": ["discover", "pretrain", "finetune"], "pretrain": selection}
    plan, finals = planned({"a": arm}, [1.0], [0])
    final = plan.nodes[finals["a", 1.0, 0][0]]
    pretrain = plan.nodes[final.start]
    assert pretrain.start is None  # discovery gives no weights
    assert list(pretrain.refers) == ["discover"] and pretrain.needs == [pretrain.refers["discover"]]
    assert [node.level for node in (plan.nodes[pretrain.refers["discover"]], pretrain, final)] == [0, 1, 2]
    assert fill(pretrain.options, {"discover": "/x"})["pretrain"]["selection"] == "/x/selection.parquet"
    with pytest.raises(UserError, match=r"study.arms.b refers to \{discover\}, which is no earlier stage"):
        planned({"b": {"stages": ["pretrain", "finetune"], "pretrain": selection}}, [1.0], [0])


def test_references_are_found_in_depth() -> None:
    assert references({"a": [{"b": "{pretrain}/x {probe}"}], "c": 1, "d": "{pretrain}"}) == ["pretrain", "probe"]
    assert fill({"a": ["{x}", 1, ("{y}",)]}, {"x": "1"}) == {"a": ["1", 1, ["{y}"]]}


def test_a_stage_with_another_backbone_than_its_start_is_an_error() -> None:
    def compose_backbone(stage: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        full = merge({"backbone": {"name": "resnet18", "pretrained": False}}, options)
        return full, json.dumps(full, sort_keys=True)

    other = {"backbone": {"name": "vit", "pretrained": True}}
    arms = {"a": {"stages": ["pretrain", "finetune"], "pretrain": other}, "b": ["pretrain", "finetune"]}
    arms["c"] = {"stages": ["pretrain", "finetune"], "pretrain": {"backbone": {"pretrained": True}}}
    recipes = read_arms(arms, arm_roles())
    plan = Plan(compose_backbone, TASKS, [1.0], arm_roles())
    plan.add(recipes["b"], 1.0, 0)
    plan.add(recipes["c"], 1.0, 0)  # ImageNet weights, then the images of one's own
    with pytest.raises(UserError, match=r"backbone\.name is 'resnet18' in stage finetune, and 'vit' in pretrain"):
        plan.add(recipes["a"], 1.0, 0)
