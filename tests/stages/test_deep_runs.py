"""Deep images and bands from pretraining to prediction: one scale in every stage, and refused where it is unknown."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import vision_mtl as vm
from vision_mtl.cli.command import main
from vision_mtl.core.errors import UserError
from vision_mtl.inference.restore import restore_model
from vision_mtl.training.checkpoint import find_checkpoint, read_state

COMMON = {"device": "cpu", "runtime.precision": "fp32", "track.tensorboard": "false"}
TRAINING = {"image_size": 16, "backbone.name": "test_resnet", "optim.steps": 2, "optim.batch_size": 6}


def command(stage: str, folder: Path, root: Path, *words: object, **options: object) -> int:
    trains = stage in ("pretrain", "finetune")
    own = {"data.root": root} if stage not in ("predict",) else {}
    found = {"stage": stage, "run_dir": folder, **COMMON, **own, **(TRAINING if trains else {}), **options}
    if not trains:
        found.pop("track.tensorboard")
    return main([str(w) for key, value in found.items() for w in (f"--{key}", value)] + [str(w) for w in words])


def write_bands(folder: Path, kind: str, bands: int = 5, count: int = 24) -> Path:
    """Images of two classes, which differ in band 3 alone; floats lie in [0, 1], integers in [0, 4000]."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.random((20, 24, bands))
        image[..., min(3, bands - 1)] *= 0.2 if number % 2 else 1.0
        file = folder / ("dry" if number % 2 else "wet") / f"{number:02d}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        scaled = image.astype(kind) if kind.startswith("f") else (image * 4000).astype(kind)
        planar = {"planarconfig": "contig"} if bands > 1 else {}
        tifffile.imwrite(file, scaled if bands > 1 else scaled[..., 0], photometric="minisblack", **planar)
    return folder


def write_config(folder: Path) -> Path:
    """A mixture without the pretexts that need colours."""
    file = folder / "pretexts.yaml"
    file.write_text("pretexts: {grid_mask: {}, downsample: {}, blur: {}, contrast: {}}\n")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_five_bands_run_from_pretraining_to_prediction(kind: str, tmp_path: Path, capsys) -> None:
    folder, root = write_bands(tmp_path / "set", kind), tmp_path / "root"
    source, bands = f"folder/{folder}", ("--data.rgb_bands", 4, 3, 0)
    given = {"config": write_config(tmp_path), "tasks.water.source": source}
    assert command("pretrain", tmp_path / "pre", root, *bands, **given, **{"backbone.in_chans": 5}) == 0
    state = read_state(find_checkpoint(tmp_path / "pre"))
    entry = state["value_ranges"][source]
    assert 0 <= entry["low"] < entry["high"] <= (1 if kind == "f4" else 4000) and entry["from"].startswith("minimum")
    assert json.loads((tmp_path / "pre" / "result.json").read_text())["data"]["value_ranges"] == state["value_ranges"]
    assert len(state["mean"]) == 5 and state["mean"][3] < min(state["mean"][:3]) and len(set(state["std"])) == 5
    assert (tmp_path / "pre" / "figures" / "repairs.png").is_file()

    assert command("probe", tmp_path / "probe", root, **{"init_from": tmp_path / "pre"}) == 0
    assert command("reconstruct", tmp_path / "rec", root, **{"init_from": tmp_path / "pre"}) == 0
    assert (tmp_path / "rec" / "figures" / "grid_mask.png").is_file()
    assert (
        command("finetune", tmp_path / "fine", root, **{"init_from": tmp_path / "pre", "tasks.water.source": source})
        == 0
    )
    images = {"init_from": tmp_path / "fine", "predict.images": folder / "wet"}
    assert command("predict", tmp_path / "answers", root, **images) == 0
    capsys.readouterr()

    run = vm.load_run(tmp_path / "fine", device="cpu")
    by_file = run.predict(str(folder / "wet"))
    records = json.loads((tmp_path / "answers" / "predictions.json").read_text())
    found = [record["tasks"]["water"]["probability"] for record in records]
    assert found == pytest.approx([record["water"]["probability"] for record in by_file], abs=1e-5)
    array = tifffile.imread(folder / "wet" / "00.tif")
    assert run.predict(array)[0]["water"]["probability"] == pytest.approx(found[0], abs=1e-5)
    row = run.pool.paths.index((folder / "wet" / "00.tif").resolve())
    assert torch.equal(run.pool.gather(torch.tensor([row])), run.images(array))
    assert len(vm.load_run(tmp_path / "pre", device="cpu").reconstruct(array, "grid_mask").pictures("damaged")) == 1
    assert by_file.figure() is not None


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetune run on grey 8-bit images."""
    folder = tmp_path_factory.mktemp("eight")
    for number in range(24):
        file = folder / "set" / ("a" if number % 2 else "b") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20), np.uint8)).save(file)
    given = {"tasks.x.source": f"folder/{folder / 'set'}", "backbone.in_chans": 1}
    assert command("finetune", folder / "run", folder / "root", **given) == 0
    return folder / "run"


def test_a_run_of_8_bits_refuses_deep_files_unless_their_range_is_declared(
    eight_bits: Path, tmp_path: Path, capsys
) -> None:
    files = write_bands(tmp_path / "deep", "u2", bands=1, count=2)
    given = {"init_from": eight_bits, "predict.images": files}
    assert command("predict", tmp_path / "a", tmp_path, **given) != 0
    said = capsys.readouterr().err
    assert "uint16 values have no declared maximum" in said and "predict.value_range" in said
    assert command("predict", tmp_path / "b", tmp_path, "--predict.value_range", 0, 4000, **given) == 0
    assert command("predict", tmp_path / "c", tmp_path, "--predict.value_range", "full", **given) == 0
    assert command("predict", tmp_path / "d", tmp_path, "--predict.value_range", "1%", "99%", **given) != 0
    run, array = vm.load_run(eight_bits, device="cpu"), tifffile.imread(files / "wet" / "00.tif")
    with pytest.raises(UserError, match=r"its uint16 values .* trained on 8-bit images; declare value_range"):
        run.images(array)
    found = run.images(array, value_range=[0, 4000])
    assert abs(float(found.mean()) - array.mean() / 4000) < 0.01
    assert torch.equal(found, run.images(Image.fromarray(array), value_range=(0, 4000)))
    with pytest.raises(UserError, match="value_range takes two numbers, or full"):
        run.images(array, value_range=["1%", "99%"])


def test_stages_that_start_from_a_run_of_8_bits_need_a_declared_range(eight_bits: Path, tmp_path: Path, capsys) -> None:
    source = f"folder/{write_bands(tmp_path / 'deep', 'i2', bands=1)}"
    given = {"init_from": eight_bits, "tasks.x.source": source}
    assert command("finetune", tmp_path / "a", tmp_path / "root", **given) != 0
    said = capsys.readouterr().err
    assert "has int16 values, whose scale is not known" in said and "was trained on 8-bit images" in said
    assert command("finetune", tmp_path / "b", tmp_path / "root", "--data.value_range", "0%", "100%", **given) == 0


@pytest.mark.slow
def test_a_resumed_run_keeps_its_range_when_the_folder_grows(tmp_path: Path, interrupt_at, capsys) -> None:
    folder = write_bands(tmp_path / "set", "u2", bands=1)
    given = {"tasks.water.source": f"folder/{folder}", "backbone.in_chans": 1, "optim.steps": 4}
    interrupt_at(3)
    assert command("finetune", tmp_path / "run", tmp_path / "root", **given) != 0
    before = read_state(find_checkpoint(tmp_path / "run"))["value_ranges"]
    tifffile.imwrite(folder / "wet" / "bright.tif", np.full((20, 24), 60000, np.uint16), photometric="minisblack")
    interrupt_at(None)
    assert command("finetune", tmp_path / "run", tmp_path / "root", **given) == 0
    after = json.loads((tmp_path / "run" / "result.json").read_text())["data"]["value_ranges"]
    assert {name: (e["low"], e["high"]) for name, e in after.items()} == {
        name: (e["low"], e["high"]) for name, e in before.items()
    }


def test_the_explorer_opens_deep_files_by_the_runs_range(eight_bits: Path, tmp_path: Path) -> None:
    from vision_mtl.explorer.handlers import Explorer, _decoded
    from vision_mtl.inference.image_files import frame_of

    model, state = restore_model(str(eight_bits))
    file = next(write_bands(tmp_path / "deep", "u2", bands=1, count=1).rglob("*.tif"))
    sent = {"data": base64.b64encode(file.read_bytes()).decode()}
    refusing = frame_of(state, "the run", model.backbone.image_size, 1)
    with pytest.raises(UserError, match="cannot be scaled"):
        refusing.fit_raw(_decoded(sent["data"]))
    frame = frame_of(state, "the run", model.backbone.image_size, 1, [0, 4000])
    explorer = Explorer({}, frame, None, {}, None, None, 1)  # type: ignore[arg-type]
    assert explorer.open(sent)["shape"] == [20, 24]


def test_images_in_memory(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 3000, (8, 32, 32, 5), dtype=np.int16)
    with pytest.raises(UserError, match=r"Give value_range=\(low, high\)"):
        vm.open_images(arrays, 32, channels=5)
    pool = vm.open_images(arrays, 32, channels=5, value_range=[0, 3000])
    found = pool.gather(torch.arange(8)).permute(0, 2, 3, 1).numpy()
    assert pool.dtype == np.uint16 and np.abs(found - arrays / 3000).max() < 2e-5
    model = vm.build_model("test_resnet", 32, [vm.GridMask(grid=2)], channels=5)
    vm.Trainer(model, pool, steps=1, batch_size=8, device="cpu").fit()
    assert np.allclose(model.backbone.mean.flatten(), found.mean((0, 1, 2)), atol=1e-4)
    assert np.allclose(model.backbone.std.flatten(), found.std((0, 1, 2)), atol=1e-3)
