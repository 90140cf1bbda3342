"""`export`: other programs get the same outputs from the files as the run's model gives."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vision_mtl.cli.command import main
from vision_mtl.core.torchvision_ops import SCHEMAS, operators_load
from vision_mtl.export import files as export_files
from vision_mtl.export import graph as export_graph
from vision_mtl.export.model_card import Origin, _earlier, _recipe, _task_scores, escape, public_source
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.inference_model import InferenceModel

ROOT = Path(__file__).parents[2]
ARCHITECTURES = {"cnn": "test_resnet", "vit": "vit_tiny_patch16_224", "swin": "swin_tiny_patch4_window7_224"}
# keywords of the architecture that must survive the export; shallow, so that tracing takes seconds
SHALLOW = {"cnn": {"output_stride": 16}, "vit": {"depth": 2, "patch_size": 8}, "swin": {"depths": [2, 1, 1, 1]}}
FORBID = 'import sys; sys.modules["vision_mtl"] = None  # any import of it fails\n'
CURE = f"""
import torch
library = torch.library.Library("torchvision", "DEF")
for schema in {SCHEMAS!r}:
    library.define(schema)
"""
READ_BACKBONES = """
import json, timm, torch
from safetensors.torch import load_file, save_file
images = load_file("images.safetensors")["images"]
found, about = {}, {}
for folder in json.load(open("folders.json")):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        inputs = (images - mean) / std
        maps = model.forward_intermediates(inputs, output_fmt="NCHW", intermediates_only=True)
        found |= {f"{folder}:pooled": model(inputs), f"{folder}:features": model.forward_features(inputs)}
        found |= {f"{folder}:map{i}": m for i, m in enumerate(maps)}
    about[folder] = {"classes": model.num_classes, "size": model.pretrained_cfg["input_size"]}
save_file({name: value.contiguous() for name, value in found.items()}, "found.safetensors")
json.dump(about, open("about.json", "w"))
"""


def run_alone(code: str, folder: Path) -> str:
    """Run Python in `folder` without this project."""
    cure = "" if operators_load(Path(find_spec("torchvision").origin).parent) else CURE
    done = subprocess.run(
        [sys.executable, "-c", FORBID + cure + code], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def export(start: Path, folder: Path, *words: str) -> int:
    return main(["--stage", "export", "--init_from", str(start), "--run_dir", str(folder), *words])


@pytest.fixture(scope="module")
def exported(
    many_headed: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """Run and export by architecture: every kind of head at 64 pixels, built with keywords of the architecture."""
    root = tmp_path_factory.mktemp("exports")
    found = {}
    for kind, name in ARCHITECTURES.items():
        start = many_headed(root / f"{kind}-run", backbone=name, kwargs=SHALLOW[kind], size="64")
        assert export(start, root / kind) == 0
        found[kind] = (start, root / kind)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_file_is_compared_to_the_model(exported, result, kind: str) -> None:
    _, folder = exported[kind]
    metrics = result(folder)["metrics"]
    assert set(metrics["differences"]) == {"onnx", "torch_export", "timm"}
    assert metrics["differences"]["timm"] <= 1e-6
    assert max(metrics["differences"].values()) <= 1e-4
    files = ("backbone/config.json", "backbone/model.safetensors", "model.onnx", "model.pt2", "load_image.py")
    files = (*files, "MODEL_CARD.md")
    assert metrics["files"] == {name: (folder / name).stat().st_size for name in files}
    assert [p.parent.name for p in folder.rglob("model.safetensors")] == ["backbone"]


@pytest.mark.slow
def test_timm_alone_makes_the_same_features(exported, many_headed, tmp_path: Path) -> None:
    """A CNN, a ViT and a Swin, with default keywords and with others."""
    runs = dict(exported)
    for kind, name in ARCHITECTURES.items():
        start = many_headed(tmp_path / f"{kind}-run", backbone=name, size="64", tasks=())
        quick = ("--export.onnx", "false", "--export.torch_export", "false")
        assert export(start, tmp_path / f"{kind}-whole", *quick) == 0
        assert not (tmp_path / f"{kind}-whole" / "model.onnx").exists()
        runs[f"{kind}-whole"] = (start, tmp_path / f"{kind}-whole")
    images = torch.rand(3, 3, 64, 64)
    save_file({"images": images}, tmp_path / "images.safetensors")
    folders = {kind: str(folder / "backbone") for kind, (_, folder) in runs.items()}
    (tmp_path / "folders.json").write_text(json.dumps(list(folders.values())))
    run_alone(READ_BACKBONES, tmp_path)
    found, about = load_file(tmp_path / "found.safetensors"), json.loads((tmp_path / "about.json").read_text())
    for kind, folder in folders.items():
        backbone = restore_model(str(runs[kind][0]))[0].backbone
        inputs = backbone.normalise(images)
        with torch.no_grad():
            own = {"pooled": backbone.model(inputs), "features": backbone.model.forward_features(inputs)}
            maps = backbone.model.forward_intermediates(inputs, output_fmt="NCHW", intermediates_only=True)
        own |= {f"map{i}": m for i, m in enumerate(maps)}
        for name, value in own.items():
            torch.testing.assert_close(found[f"{folder}:{name}"], value, atol=1e-6, rtol=1e-6)
        assert own["pooled"].std() > 1e-3 and about[folder] == {"classes": 0, "size": [3, 64, 64]}


@pytest.mark.slow
def test_the_cards_snippets_give_what_predict_gives(exported, tmp_path: Path) -> None:
    """For every architecture and kind of head, on a photo that is resized."""
    pixels, code = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8), "import os\n"
    for _, folder in exported.values():
        Image.fromarray(pixels).save(folder / "photo.png")
        blocks = re.findall(r"```python\n(.*?)```", (folder / "MODEL_CARD.md").read_text("utf-8"), re.S)
        assert len(blocks) == 4 and blocks[0].startswith((folder / "load_image.py").read_text("utf-8"))
        code += "\n".join([f"os.chdir({str(folder)!r})", *blocks[:3], "onnx_answers = answers", blocks[3]]) + (
            "\nfor name in answers: assert abs(answers[name].detach().numpy() - onnx_answers[name]).max() < 1e-4, name"
            "\nprint(json.dumps([about, {n: v.tolist() for n, v in onnx_answers.items()}, list(features.shape)]))\n"
        )
    lines = run_alone(code, tmp_path).splitlines()
    for (start, folder), line in zip(exported.values(), lines, strict=True):
        words = ["--stage", "predict", "--init_from", str(start), "--predict.images", str(folder / "photo.png")]
        words += ["--runtime.precision", "fp32", "--device", "cpu", "--run_dir", str(tmp_path / start.name)]
        assert main(words) == 0
        (record,) = json.loads((tmp_path / start.name / "predictions.json").read_text())
        about, answers, shape = json.loads(line)
        for task in ("shape", "tags"):
            probabilities = record["tasks"][task]["probabilities"]
            assert list(probabilities) == about["tasks"][task]["class_names"]
            assert list(probabilities.values()) == pytest.approx(answers[task][0], abs=1e-4)
        assert record["tasks"]["age"]["value"] == pytest.approx(answers["age"][0][0], abs=2e-3)
        shares = np.bincount(np.array(answers["layout"][0]).argmax(0).ravel(), minlength=3) / 64**2
        assert list(record["tasks"]["layout"]["shares"].values()) == pytest.approx(shares.tolist(), abs=1e-3)
        assert shape[0] == 1 and about["image_size"] == [64, 64] and len(about["mean"]) == 3


@pytest.mark.slow
def test_nothing_of_the_machine_is_exported(exported) -> None:
    start, folder = exported["cnn"]
    for file in (*folder.glob("model.*"), *(folder / "backbone").iterdir(), folder / "MODEL_CARD.md"):
        content = file.read_bytes()
        for path in (ROOT, start.parent, sys.prefix, "site-packages", "private/place"):
            assert str(path).encode() not in content, (file, path)


@pytest.mark.slow
def test_onnx_describes_its_inputs_and_outputs(exported) -> None:
    model = onnx.load(exported["vit"][1] / "model.onnx")
    (images,) = model.graph.input
    assert images.name == "images" and images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    sizes = [d.dim_value or d.dim_param for d in images.type.tensor_type.shape.dim]
    assert sizes == ["N", 3, 64, 64]
    assert [output.name for output in model.graph.output] == ["shape", "tags", "age", "layout"]
    kinds = [output.type.tensor_type.elem_type for output in model.graph.output]
    float32, float64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE  # numbers keep the digits of their unit
    assert kinds == [float32, float32, float64, float32]
    assert json.loads(model.metadata_props[0].value)["tasks"]["layout"]["class_names"] == ["0", "7", "200"]


@pytest.fixture(scope="module")
def small(many_headed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_headed(tmp_path_factory.mktemp("small"), size="32", tasks=("shape", "age"), chans=1)


@pytest.mark.slow
def test_a_run_without_tasks_exports_features(many_headed, tmp_path: Path, capsys, result) -> None:
    start = many_headed(tmp_path / "run", size="32,48", tasks=(), fit="pad")
    assert export(start, tmp_path / "e", "--export.torch_export", "false") == 0
    printed = capsys.readouterr()
    text = printed.err + printed.out
    assert "gives 'features', pooled" in text and "largest difference from the run's outputs: timm" in text
    assert set(result(tmp_path / "e")["metrics"]["differences"]) == {"timm", "onnx"}
    images = torch.rand(4, 3, 32, 48)
    found = export_graph.read_onnx(tmp_path / "e" / "model.onnx")(images)
    own = restore_model(str(start))[0].backbone.embed(images)
    assert list(found) == ["features"]
    torch.testing.assert_close(found["features"], own.detach(), atol=1e-4, rtol=1e-4)
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    assert "without task heads" in card and "model.pt2" not in card and "its mean colour" in card


@pytest.mark.slow
def test_task_names_may_be_names_of_operations(small: Path, tmp_path: Path) -> None:
    model, path = InferenceModel(restore_model(str(small))[0]).eval(), tmp_path / "model.onnx"
    program = export_graph.trace(model, (1, 32, 32))
    export_graph.write_onnx(program, ["shape", "age"], path, "{}")
    graph = onnx.load(path).graph
    values, weights = (
        [name for node in graph.node for name in node.output],
        [tensor.name for tensor in graph.initializer],
    )
    names = [next(n for v in found if (n := v.removeprefix("graph/")).isidentifier()) for found in (values, weights)]
    export_graph.write_onnx(program, names, path, "{}")
    assert list(export_graph.read_onnx(path)(torch.rand(2, 1, 32, 32))) == names


@pytest.mark.slow
def test_weights_beyond_the_limit_of_onnx_are_in_a_second_file(
    small: Path, tmp_path: Path, monkeypatch, result
) -> None:
    monkeypatch.setattr(export_graph, "LARGEST_ONNX", 0)
    assert export(small, tmp_path / "e", "--export.torch_export", "false") == 0
    assert {"model.onnx", "model.onnx.data"} <= set(result(tmp_path / "e")["metrics"]["files"])
    assert (tmp_path / "e" / "model.onnx").stat().st_size < (tmp_path / "e" / "model.onnx.data").stat().st_size


@pytest.mark.slow
def test_a_file_with_other_outputs_is_an_error(small: Path, tmp_path: Path, monkeypatch, capsys, result) -> None:
    original = export_files.read_onnx

    def wrong(path: Path) -> export_graph.Predict:
        return lambda images: {name: value * 1.01 for name, value in original(path)(images).items()}

    monkeypatch.setattr(export_files, "read_onnx", wrong)
    assert export(small, tmp_path / "e") == 2
    assert "model.onnx differs from the model by" in capsys.readouterr().err
    assert result(tmp_path / "e")["status"] == "failed"


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_an_error_with_a_cause(
    small: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("step 2/3 failed") from ValueError("no such view\nmore")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert export(small, tmp_path / "e") == 2
    assert "as ONNX: no such view. Leave it out with --export.onnx false." in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_runs_card_has_its_scores_and_counts(train, tmp_path: Path, result) -> None:
    words = ("--stage", "finetune", "--optim.steps", "2", "--finetune.num_evaluations", "1")
    assert train(tmp_path / "run", *words) == 0
    assert export(tmp_path / "run", tmp_path / "e", "--export.onnx", "false") == 0
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    found = result(tmp_path / "run")["metrics"]["tasks"]["shape"]
    score, others = found["accuracy"], [found[name]["accuracy"]["value"] for name in ("majority", "chance")]
    row = f"| shape | accuracy | {score['value']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {score['n']} |"
    row += "".join(f" {value:.3f} |" for value in others)
    assert row in card and "| shape | single_label |" in card and "| round, square |" in card
    (counts,) = result(tmp_path / "run")["data"]["sources"].values()
    assert f"{counts['train']} train, {counts['val']} val, {counts['test']} test" in card
    assert "- stage: finetune" in card and "images seen: 16" in card and str(tmp_path) not in card
    check = result(tmp_path / "e")["metrics"]["from_files"]
    assert check["images"] == 80 and check["labels_differing"] == check["failed"] == 0
    assert check["largest_difference"] < 1e-5 and result(tmp_path / "e")["warnings"] == []
    figure = "`load_image.py`, `model.pt2` against vision_mtl's own predictions: 0 labels differ, the largest"
    assert "Checked on 80 image files" in card and figure in card
    config = json.loads((tmp_path / "e" / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert config["interpolation"] == "hamming" and "on 40 images of the run, features differ by" in card


def test_a_checkpoint_alone_has_a_card_without_scores(small: Path, tmp_path: Path) -> None:
    words = ("--export.onnx", "false", "--export.torch_export", "false")
    assert export(small / "checkpoints" / "best.safetensors", tmp_path / "e", *words) == 0
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    assert "None are known" in card and "- folder/place\n" in card and "- step of these weights: 3" in card
    assert "COLOR_RGB2GRAY" in card and "model.onnx" not in card
    assert "not checked on image files: the run's images were not available" in card


def test_names_cannot_break_the_card() -> None:
    assert escape("a|b\n# *c* <script> `d` [e](f)") == r"a\|b \# \*c\* \<script\> \`d\` \[e\](f)"
    assert public_source("folder//home/me/cars") == "folder/cars" and public_source("hfds/me/cars") == "hfds/me/cars"


def test_a_start_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "export", "--run_dir", str(tmp_path / "e")]) == 2
    assert "export needs trained weights: give --init_from RUN" in capsys.readouterr().err


def test_every_task_of_the_model_has_a_row() -> None:
    """Also the old tasks of add_task, and a task that the result does not know."""
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 1200}
    new = {"kind": "single_label", "accuracy": score, "majority": {"accuracy": score}, "num_labelled": 5}
    metrics = {"tasks": {"new": new}, "old_tasks": {"old": {"kind": "regression", "mae": score | {"low": None}}}}
    assert _task_scores({"metrics": metrics}, ["old", "new", "lost"]) == [
        ("old", "mae", "0.500", "", "1,200", "", ""),
        ("new", "accuracy", "0.500", "0.400 to 0.600", "1,200", "0.500", ""),
        ("lost", "", "not scored", "", "", "", ""),
    ]
    assert _task_scores({}, ["old"]) == []


def test_the_card_names_what_the_weights_started_from(tmp_path: Path) -> None:
    for name, start in (("first", None), ("second", "first")):
        (tmp_path / name).mkdir()
        init = f"init_from: {tmp_path / start}" if start else ""
        (tmp_path / name / "config.yaml").write_text(f"stage: pretrain\n{init}\n")
    (tmp_path / "first" / "result.json").write_text('{"data": {"sources": {"images//home/me/photos": {"train": 3}}}}')
    told = _earlier(Origin("run", {"init_from": str(tmp_path / "second")}, {}))
    assert told == [
        "run second (pretrain), trained on images that are not known here",
        "run first (pretrain), trained on images/photos",
    ]
    itself = Origin("first", {"init_from": str(tmp_path / "first")}, {})
    assert _earlier(itself) == [] == _earlier(Origin("run", {}, {}))


def test_the_card_says_what_the_teacher_was_trained_on() -> None:
    teacher = {"name": "/my/runs/first", "trained_on": "images/photos"}
    found = _recipe(Origin("run", {}, {}), {"pretexts": {"distil": {}}, "teacher": teacher})
    assert found["features predicted"] == "those of first" and found["the teacher was trained on"] == "images/photos"
