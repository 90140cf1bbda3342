"""`predict`: every kind of head, every way to name images, and files with the model's predictions."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.data.decode import decode_file
from vision_mtl.data.resize import resize
from vision_mtl.inference.image_files import Frame, ImageFile, decoded_batches, find_inputs
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.request import Request


@pytest.fixture(scope="module")
def trained(many_headed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_headed(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write six pictures in two folders to `photos`, in the working directory."""
    random = np.random.default_rng(1)
    for number in range(6):
        file = tmp_path / "photos" / ("day" if number % 2 else "night") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        coarse.resize((60, 40), Image.Resampling.NEAREST).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def predict(trained: Path, folder: Path, *words: str) -> int:
    words = tuple(str(word) for word in words)
    return main(["--stage", "predict", "--init_from", str(trained), "--run_dir", str(folder), "--device", "cpu",
                 "--runtime.precision", "fp32", *words])  # fmt: skip


def read_csv(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf-8")))


def test_the_files_contain_the_models_predictions(trained: Path, photos: Path, tmp_path: Path, result, capsys) -> None:
    assert predict(trained, tmp_path / "run", "--predict.images", "photos") == 0
    rows, records = read_csv(tmp_path / "run"), json.loads((tmp_path / "run" / "predictions.json").read_text())
    names = [f"photos/{place}/{n}.png" for place, numbers in (("day", "135"), ("night", "024")) for n in numbers]
    assert [row["image"] for row in rows] == [record["image"] for record in records] == names
    model, _ = restore_model(str(trained))
    pixels = np.stack([resize(decode_file(Path(name)), (32, 48), "stretch") for name in names])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    requests = [Request(task, torch.arange(6), is_task=True) for task in model.task_specs]
    with torch.no_grad():
        found = {r.name: model.task_head(r.name).probabilities(model(images, [r])[r.key][0]) for r in requests}
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        answers = record["tasks"]
        assert list(answers["shape"]["probabilities"].values()) == pytest.approx(found["shape"][i].tolist(), abs=2e-6)
        best = int(found["shape"][i].argmax())
        assert row["shape"] == answers["shape"]["class"] == ["flat", "round", "square"][best]
        assert float(row["shape_probability"]) == pytest.approx(float(found["shape"][i, best]), abs=2e-6)
        tags = [n for n, p in zip(["big", "old", "red"], found["tags"][i].tolist(), strict=True) if p > 0.5]
        assert answers["tags"]["classes"] == tags and row["tags"] == (" ".join(tags) or "none")
        sure = torch.maximum(found["tags"][i], 1 - found["tags"][i]).min()
        assert float(row["tags_probability"]) == pytest.approx(float(sure), abs=2e-6)
        assert (
            answers["age"]["value"] == pytest.approx(float(found["age"][i, 0]), abs=1e-4)
            and "age_probability" not in row
        )
        shares = torch.bincount(found["layout"][i].argmax(0).flatten(), minlength=3) / (32 * 48)
        assert list(answers["layout"]["shares"].values()) == pytest.approx(shares.tolist(), abs=2e-6)
    assert len({row["age"] for row in rows}) == 6  # the heads do look at the images
    assert result(tmp_path / "run")["metrics"]["num_images"] == 6
    assert sum(result(tmp_path / "run")["metrics"]["answers"]["shape"].values()) == 6
    text = capsys.readouterr().out
    assert "photos/day/1.png" in text
    assert "6 images predicted: predictions.csv, predictions.json, figures/predictions.png, masks/layout/" in text


def test_masks_have_the_files_size_and_the_tasks_values(trained: Path, photos: Path, tmp_path: Path) -> None:
    Image.open("photos/day/1.png").convert("L").save("photos/day/1.jpg")  # of the same stem
    assert predict(trained, tmp_path / "run", "--predict.images", "photos") == 0
    rows = read_csv(tmp_path / "run")
    assert [row["layout"] for row in rows[:3]] == [f"masks/layout/day/{n}.png" for n in ("1", "1-2", "3")]
    values = set()
    for row in rows:
        with Image.open(tmp_path / "run" / row["layout"]) as mask:
            assert mask.mode == "P" and mask.size == (60, 40)
            values |= set(np.unique(np.asarray(mask)).tolist())
    assert len(values) > 1 and values <= {0, 7, 200}


def test_a_contact_sheet_shows_the_images(trained: Path, photos: Path, tmp_path: Path) -> None:
    assert predict(trained, tmp_path / "run", "--predict.images", "photos", "--predict.num_pictures", "4") == 0
    with Image.open(tmp_path / "run" / "figures" / "predictions.png") as sheet:
        assert np.asarray(sheet.convert("L")).std() > 20
    assert predict(trained, tmp_path / "none", "--predict.images", "photos", "--predict.num_pictures", "0") == 0
    assert not (tmp_path / "none" / "figures").exists()


def test_files_folders_globs_and_standard_input(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("photos/frame").write_bytes(Path("photos/day/3.png").read_bytes())  # no suffix, but named by the user
    Path("photos/notes.txt").write_text("not asked about")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("photos/day/1.png").read_bytes())))
    words = ["-", "photos/frame", "photos/night", "photos/*/1.png", str(photos / "day"), "photos/night/0.png"]
    assert predict(trained, tmp_path / "run", "--predict.images", *words) == 0
    rows = read_csv(tmp_path / "run")
    names = ["-", "photos/frame", *(f"photos/night/{n}.png" for n in "024"), "photos/day/1.png"]
    assert [row["image"] for row in rows] == [*names, *(str(photos / "day" / f"{n}.png") for n in "135")]
    assert rows[0]["age"] == pytest.approx(rows[5]["age"]) == rows[6]["age"] and rows[1]["age"] == rows[7]["age"]


def test_batches_of_any_size_give_the_same_predictions(trained: Path, photos: Path, tmp_path: Path) -> None:
    assert predict(trained, tmp_path / "one", "--predict.images", "photos", "--predict.batch_size", "1") == 0
    assert predict(trained, tmp_path / "all", "--predict.images", "photos") == 0
    for one, several in zip(read_csv(tmp_path / "one"), read_csv(tmp_path / "all"), strict=True):
        assert one["image"] == several["image"] and one["shape"] == several["shape"]
        assert float(one["age"]) == pytest.approx(float(several["age"]), abs=1e-3)


def test_two_batches_are_in_memory_however_many_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(Frame, "read", lambda frame, file: read.append(file.name))
    files = [ImageFile(str(n), str(n), None) for n in range(100)]
    batches = decoded_batches(files, Frame((8, 8), 3, "stretch"), batch_size=10, num_workers=2)
    assert [file.name for file, _ in next(batches)] == [str(n) for n in range(10)] and len(read) <= 20
    assert len(next(batches)) == 10 and len(read) <= 30
    assert sum(len(batch) for batch in batches) == 80 and len(read) == 100


def test_unreadable_images_are_listed_and_the_others_kept(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result
) -> None:
    Path("photos/day/3.png").write_bytes(Path("photos/day/3.png").read_bytes()[:60])
    assert predict(trained, tmp_path / "run", "--predict.images", "photos") == 2
    text = capsys.readouterr().err
    assert "1 of 6 images cannot be read" in text and "photos/day/3.png: damaged" in text
    assert "--predict.skip_unreadable" in text and str(tmp_path / "run" / "predictions.csv") in text
    assert len(read_csv(tmp_path / "run")) == 5
    assert predict(trained, tmp_path / "skip", "--predict.images", "photos", "--predict.skip_unreadable") == 0
    assert len(json.loads((tmp_path / "skip" / "predictions.json").read_text())) == 5
    assert any("photos/day/3.png" in warning for warning in result(tmp_path / "skip")["warnings"])
    assert predict(trained, tmp_path / "z", "--predict.images", "photos/day/3.png", "--predict.skip_unreadable") == 2


def test_an_interrupted_run_leaves_complete_files(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_mtl.inference.predictor import Predictor

    original, calls = Predictor.__call__, []

    def interrupted(self, images):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    words = ["--predict.images", "photos", "--predict.batch_size", "2"]
    assert predict(trained, tmp_path / "run", *words) == 130
    assert len(json.loads((tmp_path / "run" / "predictions.json").read_text())) == 4
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert predict(trained, tmp_path / "run", *words) == 0 and len(read_csv(tmp_path / "run")) == 6


def test_grey_models_and_names_with_brackets(many_headed, photos: Path, tmp_path: Path, capsys) -> None:
    Path("photos/day/[bold]1.png").write_bytes(Path("photos/day/1.png").read_bytes())
    grey = many_headed(tmp_path / "grey", size="32", chans=1, tasks=("shape",), fit="pad")
    assert predict(grey, tmp_path / "run", "--predict.images", "photos/day/[bold]1.png", "photos/day/1.png") == 0
    first, second = read_csv(tmp_path / "run")
    assert first["image"] == "photos/day/[bold]1.png" and first["shape_probability"] == second["shape_probability"]
    assert "[bold]1.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "predict needs images: give --predict.images PATH"),
        (["--predict.images", "photo"], "Did you mean 'photos'?"),
        (["--predict.images", "photos", "--predict.batch_size", "0"], "predict.batch_size must be 1 or more; found 0"),
        (["--predict.images", "photos", "--image_size", "64"], "--image_size 64 contradicts --init_from"),
    ],
)
def test_mistakes_are_named(trained: Path, photos: Path, tmp_path: Path, capsys, words: list[str], text: str) -> None:
    assert predict(trained, tmp_path / "run", *words) == 2
    assert text in capsys.readouterr().err


def test_heads_are_needed(many_headed, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(many_headed(tmp_path / "p", tasks=()), tmp_path / "run", "--predict.images", "photos") == 2
    assert "has no head for any task" in (text := capsys.readouterr().err) and "--stage finetune --init_from" in text
    assert main(["--stage", "predict", "--run_dir", str(tmp_path / "r"), "--predict.images", "photos"]) == 2
    assert "give --init_from RUN" in capsys.readouterr().err


def test_an_absolute_path_stays_as_typed(photos: Path) -> None:
    (file,) = find_inputs([str(photos / "day" / "1.png")])
    assert file.name == str(photos / "day" / "1.png") and file.inner == "1.png"


def test_names_that_are_not_utf8_are_escaped(trained: Path, photos: Path, tmp_path: Path) -> None:
    odd = bytes(photos) + b"/odd\xff.png"
    with open(odd, "wb") as file:
        file.write(Path("photos/day/1.png").read_bytes())
    assert predict(trained, tmp_path / "run", "--predict.images", "photos") == 0
    assert [row["image"] for row in read_csv(tmp_path / "run")][-1] == r"photos/odd\xff.png"
    assert json.loads((tmp_path / "run" / "predictions.json").read_text())[-1]["image"] == r"photos/odd\xff.png"
