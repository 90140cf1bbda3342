"""What an arm costs and starts from, from the records of its runs."""

from __future__ import annotations

from vision_mtl.study.costs import arm_costs, arm_starts

ARMS = {
    "plain": ["finetune"],
    "pretrained": ["pretrain", "finetune"],
    "taught": {"stages": ["pretrain", "finetune"], "pretrain": {"pretexts": {"distil": {"teacher": "big"}}}},
    "published": {"stages": ["finetune"], "backbone": {"name": "net", "pretrained": True}},
}


def run(folder: str, **other: object) -> dict:
    found = {"folder": folder, "images_seen": 640, "steps": 10, "forward_rows": 1280, "backbone_parameters": 11}
    return {**found, "seconds": 5.0, "wall_seconds": 9.0, "teacher_seconds": None, **other}


def test_the_runs_of_a_seed_add_up_and_seeds_are_averaged(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    rows = [run(node.folder) for node in runs.plan.nodes.values()]
    for row in rows:
        if row["folder"].startswith("runs/pretrain-s1"):
            row |= {"images_seen": 1280, "seconds": 7.0, "wall_seconds": 11.0}
    found = {row["arm"]: row for row in arm_costs(runs.plan, runs.finals, rows)}
    assert found["plain"] == {
        **{"arm": "plain", "fraction": 0.1, "images_seen": 640, "steps": 10, "forward_rows": 1280},
        **{"training_seconds": 5.0, "teacher_seconds": 0.0, "other_seconds": 4.0, "backbone_parameters": 11},
    }
    assert found["pretrained"]["images_seen"] == 1280 + 320 and found["pretrained"]["steps"] == 20
    assert (found["pretrained"]["training_seconds"], found["pretrained"]["other_seconds"]) == (11.0, 8.0)


def test_a_teachers_pass_counts_once_in_full(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    rows = [run(node.folder) for node in runs.plan.nodes.values()]
    taught = [row for row in rows if row["folder"].startswith("runs/pretrain") and "taught" in arms_of(runs, row)]
    taught[0] |= {"teacher_seconds": 3.0, "teacher_cached": False, "wall_seconds": 12.0}
    taught[1] |= {"teacher_seconds": 3.0, "teacher_cached": True}
    (found,) = [row for row in arm_costs(runs.plan, runs.finals, rows) if row["arm"] == "taught"]
    assert found["teacher_seconds"] == 3.0 and found["other_seconds"] == 8.0


def test_what_an_older_run_does_not_record_is_unknown(written) -> None:
    runs = written({"plain": ["finetune"]}, [0.1], [0])
    old = {"steps": None, "forward_rows": None, "backbone_parameters": None}
    rows = [run(node.folder, **old) for node in runs.plan.nodes.values()]
    (found,) = arm_costs(runs.plan, runs.finals, rows)
    assert (found["images_seen"], found["steps"], found["backbone_parameters"]) == (640, None, None)


def test_a_probe_trains_no_network(written) -> None:
    runs = written({"probed": ["pretrain", "probe"]}, [1.0], [0])
    rows = [run(node.folder) for node in runs.plan.nodes.values()]
    rows[1] |= {"images_seen": 0, "steps": None, "forward_rows": None, "backbone_parameters": None}
    (found,) = arm_costs(runs.plan, runs.finals, rows)
    assert (found["steps"], found["forward_rows"], found["backbone_parameters"]) == (10, 1280, 11)
    assert (found["training_seconds"], found["other_seconds"]) == (5.0, 13.0)


def test_an_arm_names_its_weights_and_its_teacher(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    weights = {"source": "package", "package": "lite0==1", "sha256": "0123456789", "trained_on": "ImageNet-1k"}
    about = {"weights": weights, "teacher": {"name": "big", "trained_on": "photographs"}}
    results = {node.folder: about for node in runs.plan.nodes.values()}
    found = {arm: arm_starts(runs.plan, runs.finals, arm, results) for arm in ARMS}
    assert found["plain"] == found["pretrained"] == []
    assert found["published"] == ["weights of net from the package lite0==1 (sha256 01234567); trained on: ImageNet-1k"]
    assert found["taught"] == ["teacher big; trained on: photographs"]
    results = {node.folder: {} for node in runs.plan.nodes.values()}
    for arm, what in (("published", "weights of net"), ("taught", "teacher big")):
        (told,) = arm_starts(runs.plan, runs.finals, arm, results)
        assert told == f"{what} (what they were trained on is not recorded)"


def arms_of(runs, row: dict) -> list[str]:
    return next(node.arms for node in runs.plan.nodes.values() if node.folder == row["folder"])
