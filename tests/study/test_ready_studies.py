"""The ready studies: each seed has its own pretraining, photographs have new splits, and one has an A/A control."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vision_mtl.config.resolve import resolve
from vision_mtl.config.yaml_files import read_config
from vision_mtl.recipes.study import arm_roles, option_warnings, plan_final_runs, read_pairs
from vision_mtl.recipes.study_options import composer
from vision_mtl.study.arms import read_arms
from vision_mtl.study.grid_search import plan_candidates
from vision_mtl.study.plan import Plan
from vision_mtl.study.starts import PUBLISHED, check_seeds, planned_scopes, starts_of

FILES = sorted((Path(__file__).parents[2] / "configs" / "study").glob("*.yaml"))


def planned(file: Path, num_seeds: int) -> tuple[Plan, dict, list[tuple[str, str]], dict[str, Any]]:
    given = read_config(file)
    config, study = resolve("study", given, {}), given["study"]
    arms = read_arms(study["arms"], arm_roles())
    plan = Plan(composer(config, study["options"]), config.section("tasks"), study["fractions"], arm_roles())
    finals = plan_final_runs(plan, arms, study["fractions"], study["seeds"][:num_seeds], {})
    return plan, finals, read_pairs(study.get("compare", []), list(arms)), arms


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_seed_has_its_own_pretraining(file: Path) -> None:
    given = read_config(file)
    plan, finals, pairs, arms = planned(file, 2)
    assert planned_scopes(plan, finals, pairs, given["study"]["fractions"], [0, 1]) == {}
    check_seeds(plan, finals, arms, [0, 1])
    assert option_warnings(given["study"]["options"]) == []
    if not file.stem.endswith("_quick"):
        assert given["data"]["split_seed"] in (1, 2)  # those of 0 were looked at


def test_the_control_is_the_same_recipe_with_other_seeds() -> None:
    (file,) = [file for file in FILES if file.stem == "does_ssl_help"]
    plan, finals, pairs, arms = planned(file, 8)
    assert ("control", "labelled_only") in pairs and arms["control"].options == arms["labelled_only"].options
    runs = {arm: [plan.nodes[finals[arm, 0.1, seed][0]] for seed in range(8)] for arm in ("control", "labelled_only")}
    seeds = {arm: {node.seed for node in nodes} for arm, nodes in runs.items()}
    assert not seeds["control"] & seeds["labelled_only"] and len(seeds["control"]) == 8
    without_seed = [{**node.options, "seed": 0} for nodes in runs.values() for node in nodes]
    assert all(options == without_seed[0] for options in without_seed)


def test_sharing_compares_equal_numbers_of_labelled_images() -> None:
    (file,) = [file for file in FILES if file.stem == "sharing"]
    plan, finals, _, _ = planned(file, 1)

    def images_per_task(key: str) -> float:
        options = plan.nodes[key].options
        return options["optim"]["steps"] / len(options["tasks"])

    (shared,), alone = finals["shared", 1.0, 0], finals["alone_equal_images", 1.0, 0]
    assert len(alone) == 4 and {images_per_task(key) for key in alone} == {images_per_task(shared)}
    assert plan.nodes[shared].options["finetune"]["temperature"] == 0  # each task gets the same share of a batch


def test_candidates_of_a_grid_share_a_pretraining() -> None:
    (file,) = [file for file in FILES if file.stem == "does_ssl_help_quick"]
    plan, _, _, arms = planned(file, 1)
    tuning = Plan(plan.compose, plan.tasks, plan.fractions, plan.roles)
    candidates = plan_candidates(tuning, arms, plan.fractions, [10_000])
    assert all(len(runs) == 2 for runs in candidates.values()) and len(candidates) == len(arms)
    stages = Counter(node.stage for node in tuning.nodes.values())
    assert stages["pretrain"] == sum(arm.stages[0] == "pretrain" for arm in arms.values())  # one, for two candidates
    assert stages["finetune"] + stages["joint"] == 2 * len(arms)


def test_the_table_compares_repair_with_the_weights_that_it_starts_from() -> None:
    (file,) = [file for file in FILES if file.stem == "what_should_i_do"]
    plan, finals, pairs, arms = planned(file, 2)
    assert ("imagenet_repair", "imagenet") in pairs and ("imagenet_repair", "scratch") not in pairs
    dependent = {name for name, arm in arms.items() if arm.not_independent}
    published = {
        name
        for name in arms
        if any(place[0] in PUBLISHED for place in starts_of(plan, finals, name, plan.fractions[0], [0, 1]))
    }
    assert dependent == published == {"imagenet", "imagenet_repair", "distil"}
    budgets = {node.options["optim"]["steps"] * node.options["optim"].get("batch_size", 64)
               for node in plan.nodes.values() if node.stage == "pretrain"}  # fmt: skip
    assert budgets == {9_600}


def test_every_recipe_has_as_many_labelled_images_and_each_network_one_rate() -> None:
    (file,) = [file for file in FILES if file.stem == "what_should_i_do"]
    plan, finals, _, _ = planned(file, 1)
    for (name, _, _), (key,) in finals.items():
        node = plan.nodes[key]
        found = resolve(node.stage, node.options, {})
        labelled = found.optim.batch_size * (1 - getattr(found.options, "consistency_ratio", 0))
        assert labelled == 32 and found.optim.steps == 200, name
        rates = {"resnet10t": 0.002, "tf_efficientnet_lite0": 0.0005}
        assert found.optim.peak_rate == pytest.approx(rates[found.backbone.name]), name
