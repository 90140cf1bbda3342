"""Arms: inheritance, grids, and an error for each mistake."""

from __future__ import annotations

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study import arm_roles
from vision_mtl.study.arms import flat, merge, read_arms


def test_an_arm_extends_another_and_changes_a_part() -> None:
    arms = read_arms(
        {
            "plain": ["finetune"],
            "pretrained": {
                "stages": ["pretrain", "finetune"],
                "pretrain": {"optim": {"steps": 9, "batch_size": 4}, "pretexts": {"grid_mask": {"grid": 2}}},
            },
            "longer": {"extends": "pretrained", "note": "twice", "pretrain": {"optim": {"steps": 18}}},
            "colour": {"extends": "longer", "pretrain": {"pretexts": {"decolorise": None}}},
        },
        arm_roles(),
    )
    assert arms["plain"].stages == ("finetune",) and arms["plain"].options == {}
    assert arms["longer"].stages == ("pretrain", "finetune") and arms["longer"].note == "twice"
    assert arms["longer"].options["pretrain"]["optim"] == {"steps": 18, "batch_size": 4}
    assert arms["colour"].options["pretrain"] == {
        "optim": {"steps": 18, "batch_size": 4},
        "pretexts": {"decolorise": None},  # a mixture is replaced, not added to
    }
    assert arms["pretrained"].options["pretrain"]["optim"]["steps"] == 9  # what is extended stays as it was


def test_a_grid_is_every_combination_and_reaches_its_stage() -> None:
    grid = {"finetune.optim.learning_rate": [0.1, 0.2], "pretrain.optim.steps": [3, 4, 5]}
    (arm,) = read_arms({"a": {"stages": ["pretrain", "finetune"], "grid": grid}}, arm_roles()).values()
    candidates = arm.candidates()
    assert len(candidates) == 6 and len({tuple(c.items()) for c in candidates}) == 6
    assert arm.stage_options("finetune", candidates[-1]) == {"optim": {"learning_rate": 0.2}}
    assert arm.stage_options("pretrain", candidates[-1]) == {"optim": {"steps": 5}}


def test_merging_and_flattening() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "tasks": {"x": 1}}, {"a": {"b": 3}, "tasks": {"y": 2}}) == {
        "a": {"b": 3, "c": 2},
        "tasks": {"y": 2},
    }
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({}, "must name at least one arm"),
        ({"a": "finetune"}, "study.arms.a must be a list of stages or a mapping; found 'finetune'"),
        ({"a": []}, r"study.arms.a.stages must list stages; found \[\]"),
        ({"a": ["finetun"]}, "unknown stage of study.arms.a 'finetun'. Did you mean 'finetune'"),
        ({"a": ["pretrain"]}, "end in finetune, joint or probe; found pretrain"),
        ({"a": ["probe", "finetune"]}, "end in finetune, joint or probe; found probe, finetune"),
        ({"a": ["finetune", "finetune"]}, "each stage once"),
        ({"a": {"stages": ["finetune"], "steges": 1}}, "unknown key of study.arms.a 'steges'. Did you mean 'stages'"),
        ({"a": {"stages": ["finetune"], "pretrain": {}}}, "options of stage pretrain, which it does not run"),
        ({"a": {"stages": ["finetune"], "finetune": 3}}, "study.arms.a.finetune must be a mapping of options; found 3"),
        ({"a": {"extends": "b"}}, "unknown arm that study.arms.a extends 'b'"),
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, "extends itself"),
        ({"a": {"stages": ["finetune"], "separate": "yes"}}, "separate must be true or false; found 'yes'"),
        ({"a": {"stages": ["finetune"], "seed_offset": 1.5}}, "seed_offset must be a whole number; found 1.5"),
        ({"a": {"stages": ["finetune"], "grid": {"optim.steps": [1]}}}, "'optim.steps' must be STAGE.option"),
        ({"a": {"stages": ["finetune"], "grid": {"finetune.optim.steps": 1}}}, "must list values; found 1"),
        (
            {"a": {"stages": ["finetune"], "grid": {"finetune.optim.steps": [1, 2]}}, "b": ["finetune"]},
            "none is tuned harder; found a 2, b 1",
        ),
    ],
)
def test_mistakes_are_named(arms: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_arms(arms, arm_roles())


def test_the_backbone_of_an_arm_is_that_of_all_its_stages() -> None:
    backbone = {"name": "tf_efficientnet_lite0", "pretrained": True}
    arms = {
        "plain": ["finetune"],
        "imagenet": {"stages": ["pretrain", "finetune"], "backbone": backbone, "finetune": {"optim": {"steps": 2}}},
        "enlarged": {"extends": "imagenet", "backbone": {"input_size": 128}},
    }
    found = read_arms(arms, arm_roles())
    assert found["imagenet"].options == {
        "pretrain": {"backbone": backbone},
        "finetune": {"backbone": backbone, "optim": {"steps": 2}},
    }
    assert found["enlarged"].options["pretrain"] == {"backbone": backbone | {"input_size": 128}}
    assert found["plain"].options == {}
    with pytest.raises(UserError, match=r"study\.arms\.a\.backbone must be a mapping of options; found 'resnet18'"):
        read_arms({"a": {"stages": ["finetune"], "backbone": "resnet18"}}, arm_roles())
