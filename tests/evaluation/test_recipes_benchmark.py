"""benchmarks/recipes.py: the lists, what is on file, and the paired difference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # for `benchmarks`, which is no installed package

from benchmarks import recipes
from benchmarks.recipe_runs import OF_JUDGING, PHOTOGRAPHS, ROOT, settings
from benchmarks.tables_recipes import difference, hits, mean_score, trials

TASKS = ("digits", "cars", "faces", "pets", "objects20")
LISTS = sorted((ROOT / "benchmarks" / "recipes").glob("*.yaml"))


def entry(hits: dict[str, str], seed: int = 0) -> dict[str, Any]:
    """Return what is on file of a setting with these hits; tasks that are not named have one wrong image."""
    all_hits = {task: hits.get(task, "0") for task in TASKS}
    scores = {t: {"accuracy": np.mean([int(d) for d in own]), "hits": own} for t, own in all_hits.items()}
    return {"seed": seed, "setting": "a", "probe_1": scores, "seconds": {"cpu": 1.0}}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_setting_of_a_list_has_known_options(path: Path) -> None:
    for row in recipes.read_list(path).values():
        own = {key: value for key, value in row["options"].items() if key not in OF_JUDGING}
        settings("pretrain", own, row["seed"], row["images_of"])
        settings("finetune", row["options"].get("finetune", {}), row["seed"], row["images_of"])


def test_a_list_merges_its_options_and_takes_one_seed_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(
        "images: 64\nseeds: [0, 1]\noptions: {optim: {batch_size: 32}}\n"
        "settings:\n  low: {optim: {learning_rate: 0.1}}\n  none: {images: 0}\n"
    )
    rows = recipes.read_list(path)
    assert list(rows) == ["rates/low/0", "rates/none/0", "rates/low/1", "rates/none/1"]
    assert rows["rates/low/1"]["options"] == {"optim": {"batch_size": 32, "learning_rate": 0.1}}
    assert rows["rates/none/0"]["images"] == 0 and "images" not in rows["rates/none/0"]["options"]


def test_what_is_on_file_is_measured_again_only_if_its_options_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    asked = {
        name: {"setting": name, "options": {"seed": 1}, "images_of": PHOTOGRAPHS} for name in ("kept", "changed", "new")
    }
    known = {"kept": {**asked["kept"], "commit": "c"}, "changed": {**asked["changed"], "options": {"seed": 2}}}
    monkeypatch.setattr(recipes, "on_file", lambda: known)
    monkeypatch.setattr(recipes, "open_splits", lambda kind: {})
    monkeypatch.setattr(recipes, "measure", lambda key, row: (key, row | entry({})))
    monkeypatch.setattr(recipes, "write", lambda name, found, part, splits: written.append(part))
    recipes.run(asked, [], jobs=1)
    assert written == ["changed", "new"]
    recipes.run(asked, ["kept"], jobs=1)
    assert written == ["changed", "new"]


def test_the_difference_is_the_mean_over_tasks_of_paired_hits() -> None:
    base = [entry({"cars": "0000", "pets": "01"}, seed) for seed in (0, 1)]
    better = [entry({"cars": "1100", "pets": "11"}, seed) for seed in (0, 1)]  # .5 more in two of five tasks
    assert difference(better, base, "probe_1").startswith("+20.0 (")
    assert difference(better[:1], base, "probe_1").endswith(", one seed")
    base[0]["setting"], better[0]["setting"] = "first", "second"
    rows = trials({"a/second/0": better[0], "a/first/0": base[0], "b/x/0": base[1]}, "a", ["first", "second"])
    assert [row[0] for row in rows[1:]] == ["second", "first"] and rows[2][-2] == "reference"
    assert hits(better[0], "probe_1").mean() == pytest.approx(mean_score(better[0], "probe_1"))
