"""The documents' tables are what their raw data says, and raw data says where it comes from."""

from __future__ import annotations

import glob
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import record, tables, tables_speed, tables_studies
from vision_mtl.config.resolve import resolve
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool

ROOT = tables.ROOT
RAW = sorted([*ROOT.glob("benchmarks/results/*.json"), *ROOT.glob("docs/studies/*/study.json")])
RAW = [path for path in RAW if not path.name.endswith(".uncommitted.json")]
# timings, memory, simulations and whether something runs: the same whichever images are held out
WITHOUT_SPLITS = {*tables_speed.TABLES, "statistics", "gpu", "peers"}
# nominal values, formulas and versions, not measured ones
STATED = {
    "README.md": {"3.11", "2.0"},
    "docs/statistics.md": {"0.2", ".3", "2.5", ".0625", ".002", ".05", ".023", "0.6", "2.9", "1.1"},
    "docs/architecture.md": {".01"},
}
DECIMAL = re.compile(r"(?<![\w.])[+-]?\d*\.\d+(?![\w])")
PACKAGED = ("bundled", "rendered")
PATHS = ("images", "folder", "csv", "wds")


def document(name: str) -> str:
    """Return the text of a document."""
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_tables_are_as_their_raw_data_says(name: str) -> None:
    assert tables.rendered_text(document(name), name) == document(name), "run: python benchmarks/tables.py"


def test_every_table_stands_in_one_document() -> None:
    found = [match[1] for name in tables.DOCUMENTS for match in tables.BLOCK.finditer(document(name))]
    named = [match[1] for text in found if (match := re.match("<!-- table: (.+) -->", text))]
    assert len(set(named)) == len(named) and set(tables.TABLES) <= set(named)
    assert sum(document(name).count("<!-- table: ") for name in tables.DOCUMENTS) == len(named), "a block has no end"


@pytest.mark.parametrize("name", [*tables.DOCUMENTS, "docs/architecture.md"])
def test_text_beside_the_tables_quotes_no_measured_number(name: str) -> None:
    text = prose(document(name))
    assert set(DECIMAL.findall(text)) <= STATED.get(name, set()), "a measured number belongs into a generated table"


def prose(text: str) -> str:
    """Return a document without generated tables, code and the targets of links."""
    text = tables.BLOCK.sub("", text)
    for pattern in (r"```.*?```", r"`[^`\n]*`", r"\]\([^)]*\)"):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text


def test_a_measured_number_in_the_text_is_found() -> None:
    text = "It is `0.5` and 0.97 (0.95 to +.98) fast.\n<!-- table: step -->\n| 0.3 |\n<!-- end -->\n"
    assert DECIMAL.findall(prose(text)) == ["0.97", "0.95", "+.98"]


@pytest.mark.parametrize("path", RAW, ids=lambda path: str(path.relative_to(ROOT)))
def test_raw_data_says_where_it_comes_from(path: Path) -> None:
    assert faults(json.loads(path.read_text("utf-8")), path.stem) == []


def faults(data: Mapping[str, Any], name: str) -> list[str]:
    """Return what a reader could not follow in a result: each sitting's commit, command, machine and splits."""
    whole = "commit" in data or "environment" in data
    lost = [key for key, part in data.items() if not whole and not [*tables.sittings(part)]]
    found = [f"{key} has no commit" for key in lost]
    for sitting in tables.sittings(data):
        commit = str(sitting["commit"])
        if not re.fullmatch("[0-9a-f]{40}", commit) or not is_known(commit):
            found.append(f"{commit} is not a commit of this repository")
        found += [f"no {key}" for key in ("command", "machine") if not sitting.get(key)]
        if name not in WITHOUT_SPLITS or (name == "peers" and sitting["command"][1] != "speed"):
            found += ["no split_hash"] if "split_hash" not in sitting else []
        if "split_hash" in sitting and not {"split_options", "config"} & set(sitting):
            found.append("no split_options")
    return found


def is_known(commit: str) -> bool:
    """Return True if the commit is in the history, or if there is no whole history to look it up in."""
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    if shallow.returncode or shallow.stdout.strip() != "false":
        return True
    return subprocess.run([*git, "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True).returncode == 0


def test_raw_data_that_cannot_be_followed_is_found() -> None:
    commit = "1234567890" * 4
    good = {"commit": commit, "command": ["rendered.py"], "machine": "Linux", "split_hash": "ab", "split_options": {}}
    unknown = f"{commit} is not a commit of this repository"
    assert set(faults({"cars": good}, "rendered")) <= {unknown}, "shallow clones cannot tell"
    assert f"{commit}+changes is not a commit of this repository" in faults(
        {**good, "commit": f"{commit}+changes"}, "x"
    )
    assert "None is not a commit of this repository" in faults({"rows": [{**good, "commit": None}]}, "x")
    assert "pets has no commit" in faults({"cars": good, "pets": {"n": 1}}, "rendered")
    assert "no split_options" in faults({key: good[key] for key in good if key != "split_options"}, "x")
    dirty = f"{commit}+changes"
    parts = {**good, "rows": [{"arm": "a", "commit": dirty}]}
    assert f"{dirty} is not a commit of this repository" in faults(parts, "x")
    assert "no command" not in faults(parts, "x"), "a row has the command of its sitting"
    bare = faults({"environment": {"commit": commit, "command": []}}, "x")
    assert {"no command", "no machine", "no split_hash"} <= set(bare)


HASHES = {
    (path.stem if path.name != "study.json" else path.parent.name, sitting["split_hash"]): sitting
    for path in RAW
    for sitting in tables.sittings(json.loads(path.read_text("utf-8")))
    if "split_hash" in sitting
}


@pytest.mark.slow
@pytest.mark.parametrize("sitting", HASHES.values(), ids=map("-".join, HASHES))
def test_splits_are_those_of_the_code_now(
    sitting: Mapping[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where the paths of a result start
    data, tasks = image_options(sitting, root)  # a common root, so images are decoded once
    if absent := absent_sources(data, tasks):
        pytest.skip(f"images that are not here: {', '.join(absent)}")
    found = {opened(data, tasks).summary()["split_hash"]}
    if "config" in sitting and data.unlabelled:  # a study's runs of stages that use labels alone
        found.add(opened(replace(data, unlabelled=None), tasks).summary()["split_hash"])
    assert sitting["split_hash"] in found, "measure it again"


def image_options(sitting: Mapping[str, Any], root: Path) -> tuple[Data, dict[str, Task]]:
    """Return the options of a result's images: as such, or in the config of a study."""
    if "split_options" not in sitting:
        config = resolve("study", yaml.safe_load(sitting["config"]), {"data.root": [str(root)]})
        return config.data, dict(config.tasks)
    options = sitting["split_options"]
    return Data(root=str(root), **options["data"]), {name: Task(**own) for name, own in options["tasks"].items()}


def absent_sources(data: Data, tasks: Mapping[str, Task]) -> list[str]:
    """Return the sources that are neither packaged nor here as files."""
    names = [*(data.unlabelled or []), *(task.source for task in tasks.values())]
    split = [(name, *name.partition("/")[::2]) for name in names]
    return [
        name
        for name, kind, rest in split
        if kind not in PACKAGED and not (kind in PATHS and (Path(rest).exists() or glob.glob(rest)))
    ]


def opened(data: Data, tasks: Mapping[str, Task]) -> Pool:
    """Return the pool at a small size, which has the same splits."""
    return build_pool(data, tasks, image_size=(8, 8))


def test_splits_that_changed_are_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(30):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    data, tasks = Data(root=str(tmp_path / "root")), {"letter": Task(source=f"folder/{tmp_path}/set", weight=2.0)}
    kept = json.loads(json.dumps(record.splits_of(opened(data, tasks), data, tasks)))
    assert kept["split_options"]["data"] == {} and kept["split_options"]["tasks"]["letter"]["weight"] == 2.0
    again = image_options(kept, tmp_path / "root")
    assert opened(*again).summary()["split_hash"] == kept["split_hash"] and absent_sources(*again) == []
    other = image_options({"split_options": kept["split_options"] | {"data": {"split_seed": 1}}}, tmp_path / "root")
    assert opened(*other).summary()["split_hash"] != kept["split_hash"]
    study = image_options({"config": f"stage: study\ntasks:\n  letter: {{source: folder/{tmp_path}/set}}\n"}, tmp_path)
    assert opened(*study).summary()["split_hash"] == kept["split_hash"]
    assert absent_sources(data, {"a": Task(source="folder/not/here"), "b": Task(source="bundled/digits")}) == [
        "folder/not/here"
    ]


def test_an_uncommitted_result_is_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    commit = "1234567890" * 4
    monkeypatch.setattr(record, "environment", lambda: {"commit": commit, "command": ["x.py"]})
    assert record.write("x", {"a": 1}, part="one") == tmp_path / "x.json"
    record.write("x", {"a": 2}, part="two", splits={"split_hash": "ab"})
    kept = json.loads((tmp_path / "x.json").read_text())
    assert (kept["one"]["a"], kept["two"]["a"], kept["two"]["split_hash"]) == (1, 2, "ab")
    assert kept["one"]["commit"] == commit and not capsys.readouterr().err
    for dirty in (f"{commit}+changes", None):
        monkeypatch.setattr(record, "environment", lambda dirty=dirty: {"commit": dirty, "command": ["x.py"]})
        assert record.write("x", {"a": 3}, part="one") == tmp_path / "x.uncommitted.json"
        assert "not committed: x.uncommitted.json is not for quoting" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.json").read_text()) == kept


def test_a_long_source_is_cut() -> None:
    sitting = {"commit": "1234567890" * 4, "machine": "Linux", "cpus": 2, "device": "GPU"}
    runs = [{**sitting, "command": ["train.py", "--seed", str(seed)]} for seed in range(4)]
    data = {**sitting, "command": ["repairs.py", *(f"runs/{seed}" for seed in range(9))], "runs": runs}
    told = tables.provenance(tables.TABLES["repairs"], data, "README.md")
    assert told == (
        "<sub>[repairs.json](benchmarks/results/repairs.json): `python benchmarks/repairs.py runs/0 runs/1 "
        "runs/2 runs/3 runs/4 ...` at commit 1234567, "
        "`train.py --seed 0` at commit 1234567, 3 more in the file · GPU, Linux, 2 cores</sub>"
    )


def test_a_missing_file_says_how_to_measure_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    text = "<!-- table: study none -->\nold\n<!-- end -->"
    said = "*Not measured yet: `train.py --config configs/study/none.yaml`.*"
    assert tables.rendered_text(text, "README.md") == f"<!-- table: study none -->\n\n{said}\n\n<!-- end -->"
    with pytest.raises(KeyError):
        tables.find_table("not_a_table")


def test_decoders_stand_beside_chance() -> None:
    rows = [
        {"arm": "linear", "skill": {"blur": 0.9}, "skill_by_source": {"a": {"blur": v}}, "probe": {"cars": v}}
        for v in (0.1, 0.3)
    ]
    data = {"rows": rows, "seconds_per_step": {"linear": 1.0}, "baselines": {"chance": {"cars": 0.125}}}
    assert tables_studies.decoders(data) == [
        ["decoder", "blur, a", "features, cars"],
        ["linear", ".200 ± .141", ".200 ± .141"],
        ["chance", "", ".125"],
    ]


def score(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Return a score as results hold it."""
    return {"value": value, "low": low, "high": high}


def test_a_study_is_shown_with_its_labels_control_and_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arm = {"stages": ["finetune"], "options": {}, "separate": False}
    one = {"task": "pets", "fraction": 0.1, "baseline": "labels", "baseline_score": score(0.5)}
    data = {
        "question": "Does it help?",
        "seeds": [0, 1],
        "arms": {"labels": arm, "again": {**arm, "seed_offset": 9}, "pretrained": {**arm, "stages": ["pretrain"]}},
        "scores": [
            {"task": "pets", "fraction": 0.1, "arm": "pretrained", "num_labelled": 1040, "num_validation": 25},
            {"task": "pets", "fraction": 0.1, "arm": "again", "num_labelled": 27},
        ],
        "comparisons": [
            one
            | {"arm": "pretrained", "arm_score": score(0.6), "difference": score(0.1, 0.05, 0.15)}
            | {"minimum_detectable": 0.04, "verdict": "helps"},
            one
            | {"arm": "again", "arm_score": score(0.4996), "difference": score(-0.0004)}
            | {"minimum_detectable": None, "verdict": "undecided"},
        ],
        "split_hash": "ab12",
        "environment": {
            **{"command": ["train.py", "--config", "a b.yaml"], "commit": "1234567890" * 4, "device": "cpu"},
            **{"machine": "Linux", "processor": "CPU | fast", "cpus": 2},
        },
    }
    path = tmp_path / "docs" / "studies" / "tiny" / "study.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    shown = tables.content("study tiny", "docs/measured.md").splitlines()
    assert shown[2] == (
        "| pets | 1,040 + 25 | pretrained | labels | .600 | .500 | **+.100 (+.050 to +.150)** | .040 | helps |"
    )
    assert shown[3] == "| pets | 27 | again (A/A control) | labels | .500 | .500 | .000 |  | undecided |"
    assert shown[-1] == (
        "<sub>[study.json](studies/tiny/study.json): `train.py --config 'a b.yaml'` at commit 1234567 · "
        "CPU | fast, 2 cores · splits ab12</sub>"
    )
    assert tables.content("studies", "docs/studies/README.md").splitlines()[2] == (
        "| [tiny](tiny/report.md) | Does it help? | 2 | helps: pets, pretrained; 1 undecided |"
    )
    data["comparisons"][0]["verdict"] = "helps (this pretraining)"
    path.write_text(json.dumps(data))
    assert (
        tables.content("studies", "docs/studies/README.md")
        .splitlines()[2]
        .endswith("| 2 | helps (this pretraining): pets, pretrained; 1 undecided |")
    )
