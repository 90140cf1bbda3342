"""Malicious names and secrets in the environment, traced through every file that runs write."""

from __future__ import annotations

import csv
import getpass
import io
import json
import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.recipes.result_text import result_text

pytestmark = pytest.mark.slow  # a run of every stage

HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
FORMULA = '=HYPERLINK("http://evil.example","win")'
MARKUP = "[/red] [bold]x [a](javascript:alert(3)) `"
CLASSES = (HTML, FORMULA, MARKUP)
SECRETS = {
    "HF_TOKEN": "hf_kQ3fakeTOKENfakeTOKENfake",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIfakeSECRETfake",
    "WANDB_API_KEY": "0123fakefakefakefake89abcdef",
    "SSH_AUTH_SOCK": "/run/user/4242/fake-agent.sock",
    "SECRET_PASSWORD": "correct-horse-fake-battery",
}


class Page(HTMLParser):
    """The tags of a page, and its attributes that run code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.acting: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.acting += [f"{k}={v}" for k, v in attributes if k.startswith("on") or "javascript:" in (v or "")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run every stage that writes tables or pages, on images whose files and classes have such names."""
    folder = tmp_path_factory.mktemp("names")
    patch = pytest.MonkeyPatch()
    for name, value in SECRETS.items():
        patch.setenv(name, value)
    images, rows = folder / "images", [["file", "class"]]
    images.mkdir()
    for number in range(30):
        name = (f"=cmd|' {number}.png", f"<b onmouseover=alert({number})>.png", f"[{number}].png")[number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), 0).save(images / name)
        rows.append([name, CLASSES[number % 3]])
    with (images / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    shared = ["--data.root", f"{folder}/root", "--device", "cpu"]
    small = ["--image_size", "32", "--optim.steps", "2", "--optim.batch_size", "6", "--track.tensorboard", "true"]
    small += ["--data.val_ratio", "0.2", "--runtime.precision", "fp32"]
    task = ["--tasks.kind.source", f"csv/{images}/labels.csv", "--tasks.kind.label", "class"]
    model = [*small, "--backbone.name", "test_resnet"]
    start = ["--init_from", f"{folder}/finetune"]
    stages = {
        "finetune": [*task, *model],
        "probe": [*task, "--image_size", "32", "--backbone.name", "test_resnet", "--data.val_ratio", "0.2"],
        "data": [*task, "--image_size", "32"],
        "export": [*start, "--export.onnx", "false", "--export.torch_export", "false"],
        "predict": [*start, "--predict.images", str(images)],
    }
    for stage, words in stages.items():
        given = [*words, *(shared if stage not in ("export", "predict") else ["--device", "cpu"])]
        assert main(["--stage", stage, "--run_dir", f"{folder}/{stage}", *given]) == 0, stage
    patch.undo()
    yield folder


def written(runs: Path) -> list[Path]:
    return [file for file in runs.rglob("*") if file.is_file() and not {"images", "root"} & set(file.parts)]


def test_no_page_runs_injected_code(runs: Path) -> None:
    seen = set()
    for file in written(runs):
        if file.suffix in (".md", ".html", ".svg"):
            text = file.read_text("utf-8")
            page = Page(MarkdownIt("commonmark").enable("table").render(text) if file.suffix == ".md" else text)
            assert not {"script", "img", "b"} & page.tags and not page.acting, file
            seen.add(file.name)
    assert seen == {"MODEL_CARD.md"}  # the page of a study has a separate test


def test_no_table_has_a_formula(runs: Path) -> None:
    cells = []
    for file in written(runs):
        if file.suffix == ".csv":
            cells += [cell for row in csv.reader(io.StringIO(file.read_text("utf-8"))) for cell in row]
    assert "'" + FORMULA in cells and HTML in cells and any("/=cmd|" in cell for cell in cells)
    assert not [cell for cell in cells if re.match(r"[=@\t\r]|[+-](?![\d.])", cell)]


def test_names_are_shown_unchanged(runs: Path) -> None:
    answers = json.loads((runs / "predict" / "predictions.json").read_text())
    files = {Path(answer["image"]).name for answer in answers}
    assert files >= {"=cmd|' 0.png", "<b onmouseover=alert(1)>.png", "[2].png"}
    result = json.loads((runs / "predict" / "result.json").read_text())
    assert set(result["metrics"]["answers"]["kind"]) <= set(CLASSES)
    assert result_text({"metrics": {"skill_by_source": {"images/[/x]": {}}}, "status": "completed"})


def test_no_secret_of_the_environment_is_written(runs: Path) -> None:
    files = written(runs)
    assert {"environment.json", "config.yaml", "MODEL_CARD.md", "metrics.jsonl", "predictions.csv"} <= {
        file.name for file in files
    }
    assert any("tfevents" in file.name for file in files)
    for file in files:
        data = file.read_bytes()
        for name, value in SECRETS.items():
            assert name.encode() not in data and value.encode() not in data, (file, name)


def test_an_export_names_neither_the_user_nor_the_machine_nor_a_folder(runs: Path) -> None:
    """The records of the run that made it are an exception: they are not part of the export."""
    private = [str(runs), str(Path.home()), rf"\b{re.escape(socket.gethostname())}\b", rf"/{getpass.getuser()}\b"]
    passed_on = [runs / "export" / "MODEL_CARD.md", *(runs / "export" / "backbone").iterdir()]
    assert len(passed_on) >= 3
    for file in passed_on:
        data = file.read_bytes()
        text = data[: 8 + int.from_bytes(data[:8], "little")] if file.suffix == ".safetensors" else data
        assert not [word for word in private if re.search(word.encode(), text)], file
