"""Finished runs without training: the files that a study reads, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vision_mtl.evaluation.instance_scores import InstanceScores, write_instances
from vision_mtl.recipes.study import arm_roles
from vision_mtl.study.arms import merge, read_arms
from vision_mtl.study.plan import Plan

TASKS = {"pets": {"source": "p"}, "age": {"source": "a"}}


def compose(stage: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    full = merge({"tasks": TASKS}, options)
    return full, json.dumps(full, sort_keys=True)


class Written:
    """A plan whose runs are written by `write`, not trained."""

    def __init__(self, folder: Path, arms: dict[str, Any], fractions: list[float], seeds: list[int]) -> None:
        self.folder, self.seeds, self.fractions = folder, seeds, fractions
        self.plan, self.arms = Plan(compose, TASKS, fractions, arm_roles()), read_arms(arms, arm_roles())
        self.finals = {
            (name, fraction, seed): self.plan.add(arm, fraction, seed)
            for name, arm in self.arms.items()
            for fraction in fractions
            for seed in seeds
        }

    def write(self, arm: str, fraction: float, seed: int, names: list[str], judged: list[InstanceScores]) -> Path:
        """Write the test images of the arm's run; image i is named `names[i]` and is its own cluster."""
        (key,) = self.finals[arm, fraction, seed]
        folder = self.folder / self.plan.nodes[key].folder
        folder.mkdir(parents=True, exist_ok=True)
        pool = SimpleNamespace(
            identities=names, cluster=np.arange(len(names)), class_names={"pets": ["cat", "dog"], "age": []}
        )
        write_instances(folder, pool, judged)
        return folder


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Written]:
    return lambda arms, fractions, seeds: Written(tmp_path, arms, fractions, seeds)
