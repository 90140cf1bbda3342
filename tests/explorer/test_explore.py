"""The explorer over HTTP: its replies are correct and hidden pixels never leak; and the command that serves it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explorer_requests import colourful, file_of, pixels_of, repair, send, uploaded

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.measure import ScoredNetwork, model_errors
from vision_mtl.evaluation.features import extract_features, with_clean_statistics
from vision_mtl.explorer.server import Server
from vision_mtl.explorer.site import open_site
from vision_mtl.inference.restore import restore_model
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes import build
from vision_mtl.training.checkpoint import save_weights

OpenPage = Callable[..., Server]


@pytest.fixture(scope="module")
def page(explorable: Path, open_page: OpenPage) -> Server:
    return open_page(explorable)


@pytest.fixture(scope="module")
def pool(explorable: Path) -> Pool:
    config = resolve("explore", {}, {"init_from": [str(explorable)]})
    return build.open_pool(config, Run(explorable, "explore"), 3)


@pytest.fixture(scope="module")
def start(page: Server) -> dict[str, Any]:
    return send(page, "/api/start")[2]


def test_the_start_describes_the_run(page: Server, start: dict[str, Any], pool: Pool) -> None:
    assert start["size"] == [32, 32] and start["channels"] == 3 and start["has_colour"]
    assert start["heads"] == ["decolorise", "downsample", "grid_mask", "rotation"]
    assert start["grids"] == [[4, 4]] and start["factors"] == {"offered": [2, 4, 8], "trained": [4]}
    assert [task["name"] for task in start["tasks"]] == ["letter", "shade", "size", "seen"]
    assert start["others"] == [
        {"name": "rotation", "damages": ["turn0", "turn90", "turn180", "turn270"], "classifies": True}
    ]
    assert len(start["edges"]["rows"]) == 16 and start["edges"]["columns"]["5"] == [0, 6, 12, 19, 25, 32]
    assert start["num_indexed"] == 25 and start["about"]["note"] is None
    test = set(pool.indices("test").tolist())
    assert len(start["examples"]) == 6 and {example["number"] for example in start["examples"]} <= test
    for example in start["examples"]:
        shown = pixels_of(send(page, f"/images/{example['number']}.png")[2])
        assert np.array_equal(shown, pool.pixels(torch.tensor([example["number"]]))[0])
        classes = pool.targets["letter"]
        true = classes.values[example["number"]]
        assert example["labels"].get("letter") == (None if true < 0 else classes.class_names[true])


def test_errors_are_those_of_a_discovery(explorable: Path, page: Server, start: dict[str, Any], pool: Pool) -> None:
    """The same image with the same damage, scored by the code for complete sets."""
    model, state = restore_model(str(explorable))
    mixture = Mixture({name: PRETEXTS.get(name)(**state["pretexts"][name]) for name in start["heads"]})
    index = torch.tensor([start["examples"][0]["number"]])
    judged = ScoredNetwork(model, pool, mixture)
    image = {"number": int(index)}
    cells = model_errors(judged, "grid_mask", index)[0]
    for cell in (0, 5, 15):
        found = repair(page, image, grid=[4, 4], cells=[cell])["scores"]
        assert found["repaired"] == pytest.approx(cells[cell], rel=1e-4)
        assert found["scored"] == pytest.approx(1 / 16)
        assert found["skill"] == pytest.approx(1 - found["repaired"] / found["classic"])
    grey = repair(page, image, grey=True)["scores"]
    assert grey["repaired"] == pytest.approx(model_errors(judged, "decolorise", index)[0, 0], rel=1e-4)
    coarse = repair(page, image, factor=4)["scores"]
    assert coarse["repaired"] == pytest.approx(model_errors(judged, "downsample", index)[0, 0], rel=1e-4)
    assert coarse["untrained"] < coarse["classic"]  # the back-projected and the bicubic image
    assert coarse["start"] is None  # a joint run's start is not rebuilt
    assert coarse["best"] <= coarse["untrained"] and coarse["best_rule"] not in ("classic", "start")
    assert coarse["skill_learned"] == pytest.approx(1 - coarse["repaired"] / coarse["best"])


def test_what_the_start_can_do_is_not_learned(
    explorable: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vision_mtl.explorer.site.start_network", lambda where, run: restore_model(where)[0])
    server = open_page(explorable)
    for damage in ({"grid": [4, 4], "cells": [5]}, {"factor": 4}, {"grid": [2, 2], "cells": [1], "grey": True}):
        scores = repair(server, uploaded(colourful()), **damage)["scores"]
        assert scores["start"] == pytest.approx(scores["repaired"], rel=1e-5)
        assert scores["best"] <= scores["start"] and scores["skill_learned"] <= 1e-5


def test_pictures_match_their_names(page: Server) -> None:
    picture = colourful()
    found = repair(page, uploaded(picture), grid=[2, 2], cells=[3])["pictures"]
    seen = {name: pixels_of(text).astype(int) for name, text in found.items()}
    assert list(seen) == ["original", "damaged", "prediction", "repaired", "classic", "error", "classic_error"]
    hidden = np.zeros((32, 32), bool)
    hidden[16:, 16:] = True
    for name in ("damaged", "repaired", "classic"):
        assert np.array_equal(seen[name][~hidden], picture[~hidden])
        assert not np.array_equal(seen[name][hidden], picture[hidden])
    assert np.array_equal(seen["original"], picture)
    assert not (seen["error"][~hidden] - [0, 0, 4]).any(), "the error map's darkest colour where nothing was repaired"
    grey = pixels_of(repair(page, uploaded(picture), grey=True)["pictures"]["damaged"])
    assert np.ptp(grey, axis=2).max() == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"grid": [4, 4], "cells": [5]},
        {"grid": [3, 5], "cells": [7, 8, 0]},
        {"grid": [32, 32], "cells": [r * 32 + c for r in range(9, 14) for c in range(3, 20)]},  # painted
        {"grid": [4, 4], "cells": [5, 6], "grey": True, "factor": 2},
    ],
)
def test_hidden_pixels_change_no_prediction(page: Server, damage: dict[str, Any]) -> None:
    picture = colourful()
    rows, columns = damage["grid"]
    cell = (np.arange(32) * rows // 32)[:, None] * columns + np.arange(32) * columns // 32
    if (rows, columns) == (3, 5):  # cells that pixels do not divide evenly: their own edges
        edges = [[i * 32 // n for i in range(n + 1)] for n in (rows, columns)]
        at = [np.searchsorted(e, np.arange(32), side="right") - 1 for e in edges]
        cell = at[0][:, None] * columns + at[1]
    hidden = np.isin(cell, damage["cells"])
    other = np.where(hidden[..., None], 255 - picture, picture)
    first, second = (repair(page, uploaded(image), **damage) for image in (picture, other))
    assert first["pictures"]["original"] != second["pictures"]["original"]
    for name in ("damaged", "classic", *(["prediction"] if "prediction" in first["pictures"] else [])):
        assert first["pictures"][name] == second["pictures"][name], name
    assert first["pictures"]["repaired"] == second["pictures"]["repaired"]
    for view in ("damaged", "repaired"):
        assert first["neighbours"][view] == second["neighbours"][view]
        for one, two in zip(first["tasks"], second["tasks"], strict=True):
            assert one["predictions"][view] == two["predictions"][view]
    assert first["tasks"][0]["predictions"]["original"] != second["tasks"][0]["predictions"]["original"]


def test_predictions_are_those_of_predict(explorable: Path, page: Server, tmp_path: Path) -> None:
    picture = colourful(3, (50, 40))
    (tmp_path / "one.png").write_bytes(file_of(picture))
    words = ["--stage", "predict", "--init_from", str(explorable), "--predict.images", str(tmp_path / "one.png")]
    assert main([*words, "--run_dir", str(tmp_path / "run"), "--device", "cpu", "--runtime.precision", "fp32"]) == 0
    [expected] = json.loads((tmp_path / "run" / "predictions.json").read_text())
    found = repair(page, uploaded(picture), grid=[4, 4], cells=[0])
    assert found["views"] == ["original", "damaged", "repaired"]
    for task in found["tasks"]:
        own = expected["tasks"][task["name"]]
        for key, value in task["predictions"]["original"].items():
            assert own[key] == (pytest.approx(value, abs=1e-4) if not isinstance(value, str) else value)
    dense = next(task for task in found["tasks"] if task["kind"] == "dense")
    assert {pixels_of(text).shape for text in dense["pictures"].values()} == {(32, 32, 3)}


def test_neighbours_are_the_nearest_and_never_the_image_itself(
    explorable: Path, open_page: OpenPage, pool: Pool
) -> None:
    server = open_page(explorable, split="train")
    example = send(server, "/api/start")[2]["examples"][2]["number"]
    found = repair(server, {"number": example}, grid=[4, 4], cells=[1])["neighbours"]["original"]
    model, _ = restore_model(str(explorable))
    train = pool.indices("train")
    indexed = train[torch.linspace(0, len(train) - 1, 25).long()]
    clean = with_clean_statistics(model.backbone, pool, train)
    known, own = extract_features(clean, pool, indexed), extract_features(clean, pool, torch.tensor([example]))
    cosine = torch.nn.functional.cosine_similarity(own - known.mean(0), known - known.mean(0))
    order = [n for n in indexed[cosine.argsort(descending=True)].tolist() if n != example][:4]
    assert [near["number"] for near in found] == order
    values = {n: c for n, c in zip(indexed.tolist(), cosine.tolist(), strict=True)}
    assert [near["similarity"] for near in found] == pytest.approx([values[n] for n in order], abs=2e-4)


def test_several_damages_are_repaired_in_turn_and_a_class_is_predicted(page: Server) -> None:
    both = repair(page, uploaded(colourful()), grid=[4, 4], cells=[5], grey=True)
    assert "one after the other" in both["how"] and both["scores"]["scored"] == 1
    alone = repair(page, uploaded(colourful()), grey=True)
    assert both["pictures"]["repaired"] != alone["pictures"]["repaired"]
    turned = repair(page, uploaded(colourful()), name="rotation", number=1)
    classes = turned["classification"]
    assert classes["true"] == "90°" and sum(classes["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert turned["views"] == ["original", "damaged"] and turned["scores"] is None
    assert np.array_equal(pixels_of(turned["pictures"]["damaged"]), np.rot90(colourful()))
    nothing = repair(page, uploaded(colourful()))
    assert nothing["views"] == ["original"] and list(nothing["pictures"]) == ["original"]


def test_a_trained_chain_repairs_in_one_pass(explorable: Path, open_page: OpenPage, tmp_path: Path) -> None:
    model, state = restore_model(str(explorable))
    steps = {"grid_mask": {}, "decolorise": {}}
    state = state | {"pretexts": {"chain": {"steps": steps, "weight": 1.0}}, "task_answers": {}, "class_names": {}}
    state["answers"] = {"chain": state["answers"]["grid_mask"]}
    tensors = {k.replace("heads.grid_mask.", "heads.chain."): v for k, v in model.state_dict().items()}
    kept = ("backbone.", "decoder.", "heads.chain.")
    save_weights(
        tmp_path / "checkpoints/best.safetensors", state, {k: v for k, v in tensors.items() if k.startswith(kept)}
    )
    server = open_page(tmp_path)
    found = repair(server, uploaded(colourful()), grid=[4, 4], cells=[5], grey=True)
    assert found["how"] == "The run's head for hidden pixels and lost colour repaired it."
    alone = repair(server, uploaded(colourful()), grid=[4, 4], cells=[5])
    assert "repaired" not in alone["pictures"] and "No head of this run repairs hidden pixels" in alone["how"]
    assert alone["views"] == ["original", "damaged"] and alone["scores"]["skill"] is None
    assert found["tasks"] == []


@pytest.mark.slow
def test_a_run_without_its_images_still_predicts_and_may_use_another_runs_repairs(
    many_headed: Callable[..., Path], open_page: OpenPage, tmp_path: Path, explorable: Path
) -> None:
    run = many_headed(tmp_path / "run", size="32,32")
    server = open_page(run, repair_with=str(explorable))
    start = send(server, "/api/start")[2]
    assert start["examples"] == [] and start["num_indexed"] == 0
    assert "The run's own images are not here" in start["about"]["note"] and "private/place" in start["about"]["note"]
    found = repair(server, uploaded(colourful()), grid=[4, 4], cells=[5])
    assert [task["kind"] for task in found["tasks"]] == ["single_label", "multi_label", "regression", "dense"]
    assert "repaired" in found["pictures"] and found["neighbours"] == {}
    without = repair(open_page(run), uploaded(colourful()), grid=[4, 4], cells=[5])
    assert "repaired" not in without["pictures"] and without["pictures"]["damaged"] == found["pictures"]["damaged"]
    wide = many_headed(tmp_path / "wide")
    with pytest.raises(UserError, match=r"takes images of 32 x 48 pixels .* of 32 x 32"):
        open_page(run, repair_with=str(wide))
    grey = open_page(many_headed(tmp_path / "grey", size="32,48", chans=1))
    assert not send(grey, "/api/start")[2]["has_colour"]
    found = repair(grey, uploaded(colourful()), grid=[4, 6], cells=[5])
    assert pixels_of(found["pictures"]["damaged"]).shape == (32, 48)


def test_unlisted_images_of_the_run_are_not_shown(page: Server, start: dict[str, Any], pool: Pool) -> None:
    shown = {n for n in range(len(pool)) if send(page, f"/images/{n}.png")[0] == 200}
    examples = {example["number"] for example in start["examples"]}
    assert examples < shown and len(shown) <= len(examples) + start["num_indexed"] < len(pool)
    hidden = next(n for n in range(len(pool)) if n not in shown)
    assert send(page, "/api/repair", {"image": {"number": hidden}, "damage": {}})[0] == 400


# the command


@pytest.mark.slow
def test_the_command_serves_until_interrupted_and_writes_nothing(explorable: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in explorable.rglob("*")}
    command = [sys.executable, "train.py", "--stage", "explore", "--run_dir", str(explorable), "--device", "cpu"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if "http://" in line)
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        with urllib.request.urlopen(f"{url}api/start", timeout=60) as reply:
            assert json.load(reply)["about"]["run"] == str(explorable)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert {file: file.stat().st_mtime_ns for file in explorable.rglob("*")} == before


def test_which_run_is_shown(explorable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "explore"]) == 2
    assert "explore needs a trained run" in capsys.readouterr().err
    assert main(["--stage", "explore", "--run_dir", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(["--stage", "explore", "--run_dir", str(explorable), "--init_from", str(tmp_path)]) == 2
    assert "name two runs" in capsys.readouterr().err
    words = ["--stage", "explore", "--run_dir", str(explorable), "--init_from", f"{explorable}/."]
    assert main([*words, "--print_config"]) == 0
    assert f"init_from: {explorable}" in capsys.readouterr().out
    for option, value, words in (
        ("split", "tset", "'test'"),
        ("num_examples", "-1", "0 or more"),
        ("port", "x", "whole"),
    ):
        assert main(["--stage", "explore", "--run_dir", str(explorable), f"--explore.{option}", value]) == 2
        assert words in capsys.readouterr().err


def test_missing_images_given_as_options_end_the_command(explorable: Path, tmp_path: Path) -> None:
    given = {"init_from": [str(explorable)], "data.unlabelled": [f"images/{tmp_path}/none"], "device": ["cpu"]}
    config = resolve("explore", {}, given)
    with pytest.raises(UserError, match="none"):
        open_site(config, Run(explorable, "explore"), "test", 4, 4, 40, None)
