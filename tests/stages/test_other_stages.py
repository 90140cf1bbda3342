"""`reconstruct` and `data`: pictures of a trained run, and a summary of the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.cli.command import main


def reconstruct(trained: Path, folder: Path, *words: str) -> int:
    return main(
        ["--stage", "reconstruct", "--init_from", str(trained), "--run_dir", str(folder), "--device", "cpu", *words]
    )


def test_pictures_of_the_runs_own_images(trained: Path, tmp_path: Path, result) -> None:
    assert reconstruct(trained, tmp_path / "r") == 0
    assert {file.stem for file in (tmp_path / "r" / "figures").iterdir()} == {
        "grid_mask",
        "decolorise",
        "downsample",
        "contrast",
        "skill",
    }
    first, again = result(trained)["metrics"], result(tmp_path / "r")["metrics"]
    for name, score in first["skill"].items():
        assert again["skill"][name]["value"] == pytest.approx(score["value"], abs=1e-4)
        learned = [metrics["skill_learned"][name] for metrics in (first, again)]
        assert learned[1]["value"] == pytest.approx(learned[0]["value"], abs=1e-4)
        assert learned[1]["reference"] == learned[0]["reference"]


def test_a_checkpoint_of_a_run_is_compared_with_the_start_of_the_run(trained: Path, tmp_path: Path, result) -> None:
    checkpoints = trained / "checkpoints"
    for number, where in enumerate((checkpoints, max(checkpoints.glob("step-*.safetensors")))):
        assert reconstruct(where, tmp_path / str(number)) == 0
        found = result(tmp_path / str(number))
        assert not [text for text in found["warnings"] if "among the rules" in text]
        for name, score in result(trained)["metrics"]["skill_learned"].items():
            assert found["metrics"]["skill_learned"][name]["reference"] == score["reference"]


@pytest.mark.slow
def test_pictures_of_other_images_and_splits(trained: Path, tmp_path: Path, result, root: Path) -> None:
    words = ["--data.unlabelled", "bundled/faces", "--data.root", str(root), "--reconstruct.split", "train"]
    assert reconstruct(trained, tmp_path / "r", *words) == 0
    found = result(tmp_path / "r")
    assert list(found["data"]["sources"]) == ["bundled/faces"]
    assert any("no picture of decolorise" in warning for warning in found["warnings"])


def test_untrained_pretexts_are_an_error(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reconstruct(trained, tmp_path / "r", "--pretexts.blur.weight", "1") == 2
    assert "holds no weights for pretext 'blur'; it was trained on" in capsys.readouterr().err
    assert main(["--stage", "reconstruct", "--run_dir", str(tmp_path / "s")]) == 2
    assert "give --init_from RUN" in capsys.readouterr().err
    assert reconstruct(trained, tmp_path / "t", "--reconstruct.split", "tests") == 2
    assert "Did you mean 'test'" in capsys.readouterr().err


def test_data_counts_shows_and_cleans(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result
) -> None:
    words = ["--stage", "data", "--data.root", str(tmp_path / "root"), "--tasks.shape.source", f"folder/{image_folder}"]
    assert main([*words, "--image_size", "16", "--run_dir", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "80 images" in text and "shape" in text
    (sheet,) = (tmp_path / "run" / "figures").iterdir()
    assert np.asarray(Image.open(sheet).convert("L")).std() > 5
    assert result(tmp_path / "run")["data"]["tasks"]["shape"]["classes"] == 2
    clean = [
        "--stage",
        "data",
        "--data.root",
        str(tmp_path / "root"),
        "--data.clean",
        "--run_dir",
        str(tmp_path / "clean"),
    ]
    assert main(clean) == 0
    assert "1 stores deleted" in capsys.readouterr().out
    assert not [p for p in (tmp_path / "root" / "store").iterdir() if p.is_dir()]
