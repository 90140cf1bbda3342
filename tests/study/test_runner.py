"""The runner: order, what is left alone, what a failure stops, and clusters of two workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study import arm_roles
from vision_mtl.study.plan import Plan
from vision_mtl.study.recipes import merge, read_arms
from vision_mtl.study.runner import Job, RunJob, Runner, finished, read_clock


def cheap_job() -> RunJob:
    """A job that only writes its result; made here, so that it travels to workers by value."""

    def run(job: Job) -> str | None:
        import json
        import os
        from pathlib import Path

        if job.options.get("fails"):
            return "it was told to fail."
        if job.options.get("start_must_be_finished", True) and "init_from" in job.options:
            result = json.loads((Path(job.options["init_from"]) / "result.json").read_text())
            assert result["status"] == "completed"
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / "times.txt").open("a") as file:
            file.write("once\n")
        result = {"status": "completed", "process": os.getpid(), "seed": job.options["seed"]}
        (job.folder / "result.json").write_text(json.dumps(result))
        return None

    return run


def compose(stage: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    full = merge({"tasks": {"t": {"source": "s"}}}, options)
    return full, json.dumps(full, sort_keys=True)


def plan_of(seeds: int, **pretrain: Any) -> Plan:
    plan = Plan(compose, {"t": {"source": "s"}}, [1.0], arm_roles())
    arms = {"plain": ["finetune"], "pretrained": {"stages": ["pretrain", "finetune"], "pretrain": pretrain}}
    for arm in read_arms(arms, arm_roles()).values():
        for seed in range(seeds):
            plan.add(arm, 1.0, seed)
    return plan


def times(folder: Path) -> list[int]:
    return [len(file.read_text().splitlines()) for file in folder.glob("runs/*/times.txt")]


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_every_run_is_run_once_after_what_it_needs(tmp_path: Path, num_jobs: int) -> None:
    plan = plan_of(3)
    Runner(tmp_path, cheap_job(), num_jobs).run(plan)
    assert times(tmp_path) == [1] * 9
    for node in plan.nodes.values():
        assert finished(tmp_path / node.folder) and read_clock(tmp_path / node.folder)["starts"] == 1
    Runner(tmp_path, cheap_job(), num_jobs).run(plan)
    assert times(tmp_path) == [1] * 9  # all finished: nothing is repeated
    Runner(tmp_path, cheap_job(), num_jobs).run(plan_of(4))
    assert times(tmp_path) == [1] * 12


def test_an_unfinished_run_is_run_again(tmp_path: Path) -> None:
    plan = plan_of(2)
    Runner(tmp_path, cheap_job(), 1).run(plan)
    cut, other = (tmp_path / node.folder for node in list(plan.nodes.values())[:2])
    (cut / "result.json").write_text('{"status": "interr')
    (other / "result.json").write_text('{"status": "interrupted"}')
    Runner(tmp_path, cheap_job(), 1).run(plan)
    assert sorted(times(tmp_path)) == [1, 1, 1, 1, 2, 2] and read_clock(cut)["starts"] == 2


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(2, fails=True)
    with pytest.raises(UserError) as error:
        Runner(tmp_path, cheap_job(), 2).run(plan)
    assert times(tmp_path) == [1, 1]  # the plain arm, at both seeds
    said = str(error.value)
    assert said.startswith("2 of 6 runs failed:") and "it was told to fail." in said
    assert "2 runs are finished and kept. 2 more runs need them." in said
    for node in plan.nodes.values():  # mended: the same plan goes on
        node.options.pop("fails", None)
    Runner(tmp_path, cheap_job(), 2).run(plan)
    assert times(tmp_path) == [1] * 6


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_local_cluster_of_two_workers(tmp_path: Path, backend: str) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    plan = plan_of(4)
    Runner(tmp_path, cheap_job(), 2, backend).run(plan)
    assert times(tmp_path) == [1] * 12
    results = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/result.json")]
    assert {result["seed"] for result in results} == {0, 1, 2, 3}
    assert len({result["process"] for result in results}) >= 2  # more than one worker was at it


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"study.backend ray needs a package .*requirements-cluster.txt"):
        Runner(tmp_path, cheap_job(), 2, "ray").run(plan_of(1))


def test_progress_says_how_long_it_will_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vision_mtl.study.runner import Forecast

    plan = plan_of(2)
    assert Forecast(plan, tmp_path, 2).text() == "0 of 6 runs done, 2 at a time"  # nothing to judge by yet
    Runner(tmp_path, cheap_job(), 1).run(plan)
    for node in plan.nodes.values():
        (tmp_path / f"{node.folder}.clock.json").write_text('{"wall_seconds": 60.0, "starts": 1}')
    first, *_, last = plan.nodes.values()
    (tmp_path / first.folder / "result.json").unlink()
    (tmp_path / last.folder / "result.json").unlink()
    assert Forecast(plan, tmp_path, 2).text() == "4 of 6 runs done, 2 at a time, about 60 s left"
