"""The commands that a run prints at its end are executed: as printed, at a tiny size, with PATH replaced."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.cli.command import main, split_words
from vision_mtl.cli.next_steps import what_next
from vision_mtl.config.resolve import resolve
from vision_mtl.config.stage import STAGES
from vision_mtl.config.words import as_words, with_name, words_like

Commands = dict[str, list[str]]  # stage -> the words of its command
Start = Callable[..., Commands]
TINY = {"optim.steps": 1, "optim.batch_size": 4, "score.images": 4, "track.tensorboard": "false"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of 20 pictures whose name needs quotes, one of them broken."""
    folder, random = tmp_path_factory.mktemp("next") / "my $photos' (é)", np.random.default_rng(0)
    for number in range(40):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file)
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def start(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Return a function that runs a command at a tiny size and returns the commands that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(words: list[str], **more: Any) -> Commands:
        stage = split_words(words)["stage"][0]
        sections = STAGES.get(stage).sections
        small = {"device": "cpu", "run_dir": f"runs/{stage}", "console": "json"} | more
        small |= {key: value for key, value in TINY.items() if key.split(".")[0] in sections}
        if stage == "export":
            small |= {"export.onnx": "false", "export.torch_export": "false", "export.check_images": 2}
        if stage == "discover":
            small |= {"discover.num_images": 4, "discover.num_scorings": 0}
        options = [word for key, value in small.items() for word in (f"--{key}", str(value))]
        assert main([word.replace("PATH", str(photos)) for word in words] + options) == 0, words
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        found = {}
        for command, _ in result["next"]:
            program, script, *rest = shlex.split(command)
            assert (program, script) == ("python", "train.py")
            found[split_words(rest)["stage"][0]] = rest
        return found

    return run


def data_words(photos: Path) -> list[str]:
    """Options without which the images cannot be opened, or have other splits, sizes or channels."""
    options = {"tasks.kind-1.source": f"folder/{photos}", "data.skip_unreadable": "true", "data.split_seed": "3"}
    options |= {"image_size": "16,24", "data.root": "the root"}
    return [word for key, value in options.items() for word in (f"--{key}", value)]


def test_the_commands_after_data_and_pretraining_run(start: Start, photos: Path) -> None:
    after_data = start(["--stage", "data", *data_words(photos), "--data.channels", "1"])
    assert set(after_data) == {"pretrain", "finetune"}
    network = ["--backbone.name", "test_resnet"]
    after_pretrain = start([*after_data["pretrain"], *network])
    assert list(after_pretrain) == ["probe", "finetune", "reconstruct"]
    start(after_pretrain["reconstruct"])
    after_probe = start(after_pretrain["probe"])
    after_finetune = start(after_probe["finetune"])
    assert list(after_finetune) == ["predict", "export"]
    start(after_finetune["predict"], **{"predict.skip_unreadable": "true"})
    assert list(start(after_finetune["export"])) == ["explore"]
    results = [json.loads(Path(f"runs/{s}/result.json").read_text())["data"] for s in ("data", "pretrain", "finetune")]
    assert len({result["split_hash"] for result in results}) == 1
    assert all(result["num_images"] == 40 and result["image_size"] == [16, 24] for result in results)


def test_the_commands_after_a_discovery_run(start: Start, photos: Path) -> None:
    options = ["--backbone.name", "test_resnet", "--data.fit", "crop", "--discover.select", "top"]
    (words,) = start(["--stage", "discover", *data_words(photos), *options, "--pretexts.grid_mask.grid", "2"]).values()
    assert "--selection" in words
    after = start(words, **{"score.images": 0})
    assert set(after) == {"probe", "finetune", "reconstruct"}
    config = (Path("runs/pretrain/config.yaml")).read_text()
    assert "grid: 2" in config and "fit: crop" in config and "split_seed: 3" in config


def test_images_without_labels_are_probed_on_a_named_place(start: Start, photos: Path) -> None:
    images = [f"images/{photos}/a", f"images/{photos}/b"]
    words = ["--stage", "pretrain", "--data.unlabelled", *images, "--data.skip_unreadable", "--image_size", "32"]
    after = start([*words, "--backbone.name", "test_resnet"], **{"score.images": 0})
    assert after["probe"][-2:] == ["--tasks.my_task.source", "folder/PATH"]
    assert list(start(after["probe"])) == ["finetune", "predict", "export"]


RESULT = {"data": {"sources": {"a": {"test": 3}}}, "metrics": {}}
NAMES = st.text("a 1'$[{\"é-:#,\\=", min_size=1, max_size=5)


@example(["--1"], True, None, 32, {})
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(NAMES, min_size=1, max_size=2, unique=True),
    st.booleans(),
    st.none() | st.tuples(st.floats(-1e5, 0), st.floats(1, 1e5)).map(list) | st.just("full"),
    st.sampled_from([32, "16,24"]),
    st.dictionaries(st.sampled_from(["drop_rate", "x"]), st.floats(0, 1) | NAMES),
)
def test_every_word_means_the_option_again(names: list[str], tasks: bool, values: Any, size: Any, kwargs: Any) -> None:
    file: dict[str, Any] = {"data": {"unlabelled": [f"images/{n}" for n in names], "value_range": values}}
    file |= {"image_size": size, "backbone": {"kwargs": kwargs}, "decoder": {"name": "linear"}}
    if tasks:
        file["tasks"] = {f"task-{i}": {"source": f"folder/{n}", "label_from": n} for i, n in enumerate(names)}
    config = resolve("pretrain", file, {})
    words = words_like(config, "discover", {})
    again = split_words(shlex.split(shlex.join([w for key, ws in words.items() for w in with_name(key, ws)])))
    found = resolve("discover", {}, again)
    assert found.image_size == config.image_size
    for section in ("data", "tasks", "backbone", "decoder"):
        assert found.section(section) == config.section(section)


def test_options_that_a_stage_has_anyway_are_left_out() -> None:
    assert words_like(resolve("pretrain", {}, {}), "finetune", {}) == {}
    config = resolve("data", {}, {"data.channels": ["1"], "data.unlabelled": ["images/a"]})
    assert words_like(config, "pretrain", {}) == {
        "data.unlabelled": ["images/a"],
        "backbone.in_chans": ["1"],
        "pretexts.decolorise.weight": ["0"],
    }
    assert as_words([]) == ["[]"] and as_words(["--a"]) == ["[--a]"]


def test_nothing_is_suggested_that_would_fail(tmp_path: Path) -> None:
    probe = resolve("probe", {"probe": {"heads": False}}, {})
    assert what_next(probe, tmp_path, RESULT) == []
    discover = resolve("discover", {"data": {"unlabelled": ["images/a"]}}, {})
    ((command, _),) = what_next(discover, tmp_path, RESULT | {"metrics": {"selected_ratio": 0.0}})
    assert command == "python train.py --stage pretrain --data.unlabelled images/a", "no selection without damage in it"
    gone = resolve("finetune", {}, {})
    assert what_next(gone, tmp_path, RESULT) == [], "without a checkpoint, nothing can start from the run"
    purposes = {stage: STAGES.get(stage).next_commands for stage in STAGES.names()}
    assert {stage for stage, found in purposes.items() if not found} == {"explore", "study"}


@pytest.mark.parametrize(
    ("started", "printed"),
    [
        ("train.py", "python train.py"),
        ("/a b/train.py", "python '/a b/train.py'"),
        ("/venv/bin/vision_mtl", "vision_mtl"),
        ("/venv/site-packages/vision_mtl/__main__.py", "python -m vision_mtl"),
        ("notebook", "python train.py"),
    ],
)
def test_a_command_is_printed_as_it_was_started(started: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [started])
    ((command, _),) = what_next(resolve("data", {"data": {"unlabelled": ["images/a"]}}, {}), Path("runs"), RESULT)
    assert command == f"{printed} --stage pretrain --data.unlabelled images/a"
