"""`--stage data` shows every error at once, although training would stop at the first kind of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.recipes.contact_sheet import contact_sheet
from vision_mtl.viz.style import COLOURS


def test_all_errors_are_shown_and_the_other_sources_counted(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result
) -> None:
    listed = tmp_path / "scores.csv"
    rows = [
        f"{file},{'bad' if number % 2 else number}" for number, file in enumerate(sorted(image_folder.rglob("*.png")))
    ]
    listed.write_text("image,score\n" + "\n".join(rows))
    words = ["--stage", "data", "--data.root", str(tmp_path / "root"), "--image_size", "16"]
    words += ["--tasks.shape.source", f"folder/{image_folder}", "--tasks.lost.source", f"folder/{tmp_path / 'lost'}"]
    words += ["--tasks.score.source", f"csv/{listed}", "--tasks.score.kind", "regression"]
    assert main([*words, "--run_dir", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("2 errors")
    assert "there is no" in shown.out and "must be a finite number" in shown.out
    assert f"{image_folder.parent.name}/{image_folder.name}" in shown.out  # counted in the tables below
    assert "error: 2 errors in the data:\n1. " in shown.err and "must be a finite number" in shown.err
    severities = [finding["severity"] for finding in json.loads((tmp_path / "run" / "findings.json").read_text())]
    assert severities.count("error") == 2
    assert result(tmp_path / "run")["status"] == "failed"


def test_the_page_and_the_result_tell_the_same_facts(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result
) -> None:
    files = sorted(image_folder.rglob("*.png"))
    listed = tmp_path / "ages.csv"
    listed.write_text("image,age\n" + "\n".join(f"{file},{30 + 7 * number % 50}" for number, file in enumerate(files)))
    pile = tmp_path / "pile"
    pile.mkdir()
    for number in range(10):
        Image.new("L", (20 + number, 10), 20 * number).save(pile / f"{number}.png")
    Image.new("L", (29, 10), 180).save(pile / "copy of 9.png")
    words = ["--stage", "data", "--data.root", str(tmp_path / "root"), "--image_size", "16", "--data.unlabelled"]
    words += [f"images/{pile}", "--tasks.shape.source", f"folder/{image_folder}", "--tasks.age.source", f"csv/{listed}"]
    words += ["--tasks.age.kind", "regression", "--data.val_ratio", "0.05", "--run_dir", str(tmp_path / "run")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.partition("results: ")[0].splitlines())) <= 100
    data = result(tmp_path / "run")["data"]

    row = data["sources"][f"images/{pile}"]
    assert row["exact_copies"] == 1 and row["original"]["modes"] == {"grey": 11}
    assert row["original"]["width"] == {"low": 20, "median": 25, "high": 29} and "25 (20-29)" in shown
    held = row["held_out"]
    assert held["images"] == row["val"] + row["test"] and held["rule"] == "data.val_ratio 0.05, data.test_ratio 0.2"
    assert f"{held['images']} images ({100 * held['share']:.0f} %) are held out" in " ".join(shown.split())
    assert "held_out" not in data["sources"][f"folder/{image_folder}"]

    shape, age = data["tasks"]["shape"], data["tasks"]["age"]
    for split in ("train", "val", "test"):
        assert sum(counts[split] for counts in shape["images_by_class"].values()) == shape[split]
    assert age["values"]["train"]["low"] >= 30 and "images_by_class" not in age and f"csv/{listed}" == age["source"]
    (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["age"] and "regression" in line]
    assert line[0] == "age" and line[4] == "-", "no classes, not 0"
    assert "task 'age': 4 validation images: too few to choose weights by (5 or more are enough)" in shown

    with Image.open(tmp_path / "run" / "figures" / "contact_sheet.png") as sheet:
        assert sheet.width == 1000


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_some_of_many_classes_and_masks(
    channels: int, image_folder: Path, label_table: Path, tmp_path: Path
) -> None:
    tasks = {
        "digit": Task(source=f"folder/{image_folder}", label_from=r"(\d)\.png$"),
        "mask": Task(source=f"images/{label_table}", kind="dense", masks=str(label_table / "masks")),
    }
    pool = build_pool(Data(root=str(tmp_path)), tasks, image_size=(16, 16), channels=channels)
    assert pool.blocks[0].shape[3] == channels
    (axes,) = contact_sheet(pool, {name: task.source for name, task in tasks.items()}, 4).axes
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts == ["digit, 4 of 10 classes", "0", "3", "6", "9", "mask, images and masks"]
    pixels = np.asarray(axes.images[0].get_array()).reshape(-1, 3)
    for colour in COLOURS[:2]:
        assert (np.abs(pixels - to_rgb(colour)) < 1e-5).all(1).sum() > 100, "a class of the masks"
