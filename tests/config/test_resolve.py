"""Resolving options into one config; errors name the mistake and what was probably meant."""

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest
import yaml

from vision_mtl.cli.command import main, split_words
from vision_mtl.cli.help import help_text
from vision_mtl.config.resolve import DEFAULT_TASKS, resolve
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.recipes.build import build_model, build_pretexts

ROOT = Path(__file__).parents[2]


def config(*words: str, file: dict | None = None):
    return resolve("pretrain", file or {}, split_words(list(words)))


def test_the_embedded_default() -> None:
    found = config()
    assert found.data.unlabelled == ["bundled/photos"]
    assert {
        name: {k: getattr(task, k) for k in DEFAULT_TASKS[name]} for name, task in found.tasks.items()
    } == DEFAULT_TASKS
    assert list(found.pretexts) == ["grid_mask", "decolorise", "downsample", "contrast"]
    assert found.pretexts["grid_mask"].hidden == "one" and found.pretexts["contrast"].criterion == "coding_rate"
    assert found.image_size == (64, 64) and found.backbone.name == "resnet10t"
    assert found.optim.steps and found.optim.max_seconds, "a number of images, and a cap in seconds"
    assert list(resolve("joint", {}, {}).pretexts) == ["grid_mask", "decolorise", "downsample"]


def test_given_images_or_tasks_replace_the_default() -> None:
    images = config("--data.unlabelled", "images/a", "images/b")
    assert images.data.unlabelled == ["images/a", "images/b"] and images.tasks == {}
    tasks = config("--tasks.cars.source", "folder/x")
    assert tasks.data.unlabelled == [] and list(tasks.tasks) == ["cars"]
    both = config("--tasks.cars.source", "folder/x", file={"data": {"unlabelled": "images/a"}})
    assert both.data.unlabelled == ["images/a"] and list(both.tasks) == ["cars"]


def test_the_default_of_one_end_of_training_does_not_count_if_the_other_is_given() -> None:
    assert config("--optim.steps", "10").optim.max_seconds is None
    assert config("--optim.max_seconds", "10").optim.steps is None
    both = config("--optim.steps", "10", "--optim.max_seconds", "5").optim
    assert (both.steps, both.max_seconds) == (10, 5.0)


def test_options_of_the_default_mixture_are_not_those_of_a_named_pretext() -> None:
    named = config(file={"pretexts": {"contrast": None}}).pretexts["contrast"]
    assert named.criterion == "nt_xent" and named.weight == 1
    edited = config("--pretexts.contrast.views", "4").pretexts["contrast"]
    assert (edited.views, edited.criterion, edited.weight) == (4, "coding_rate", 6)


def test_a_run_begun_with_earlier_defaults_resumes_with_them(tmp_path: Path) -> None:
    before = config(
        *("--backbone.name", "resnet18", "--optim.batch_size", "64", "--optim.learning_rate", "4e-3"),
        *("--optim.max_seconds", "150"),
        file={"pretexts": {"grid_mask": {"grid": 2}, "decolorise": None, "downsample": None}},
    )
    (tmp_path / "config.yaml").write_text(before.to_yaml())
    resumed = resolve("pretrain", {}, {"pretexts.grid_mask.grid": ["2"]}, folder=tmp_path)
    assert resumed.to_dict() == before.to_dict()
    assert resolve("pretrain", {}, {}, folder=tmp_path / "new").to_dict() == config().to_dict()


@pytest.mark.parametrize("given", ["48,64", "48x64", "[48, 64]"])
def test_image_sizes(given: str) -> None:
    assert config("--image_size", given).image_size == (48, 64)


def test_the_command_line_wins_over_the_file() -> None:
    found = config("--optim.batch_size", "8", file={"optim": {"batch_size": 32, "accumulate": 2}})
    assert found.optim.batch_size == 8 and found.optim.accumulate == 2


def test_a_file_chooses_the_mixture_and_the_command_line_edits_it() -> None:
    assert list(config(file={"pretexts": {"blur": None, "rotation": {"weight": 2}}}).pretexts) == ["blur", "rotation"]
    assert list(config("--pretexts.blur.weight", "1").pretexts) == [*config().pretexts, "blur"]
    grids = config("--pretexts.grid_mask.grid", "2", "3x5", "8").pretexts["grid_mask"].grid
    assert [str(grid) for grid in grids] == ["2", "3x5", "8"]


def test_backbone_kwargs_by_dots_or_as_a_mapping() -> None:
    dotted = config("--backbone.kwargs.output_stride", "8", "--backbone.kwargs.drop_path_rate", "0.1")
    assert dotted.backbone.kwargs == {"output_stride": 8, "drop_path_rate": 0.1}
    assert config("--backbone.kwargs", "{output_stride: 8}").backbone.kwargs == {"output_stride": 8}


def test_an_augmentation_by_name_by_file_or_as_a_mapping() -> None:
    flip = {"__class_fullname__": "HorizontalFlip", "p": 0.5}
    policy = {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": [flip]}}
    task = {"source": "folder/x", "kind": "multi_label", "ignore": None, "augment": policy}
    found = config(file={"tasks": {"cars": task}}).tasks["cars"]
    assert found.augment == policy and found.ignore is None and found.weight == 1.0
    again = config(file={"tasks": yaml.safe_load(config(file={"tasks": {"cars": task}}).to_yaml())["tasks"]})
    assert again.tasks["cars"] == found
    for words in ("mirror", "policies/mine.yaml"):
        assert config("--tasks.cars.augment", words, file={"tasks": {"cars": task}}).tasks["cars"].augment == words


MISTAKES = [
    (["--optim.bach_size", "8"], r"unknown option 'optim\.bach_size'\. Did you mean 'optim\.batch_size'"),
    (["--device", "gpu"], r"unknown value of device 'gpu'.*Known: auto, cpu, cuda, mps"),
    (["--optim.batch_size", "many"], r"option optim\.batch_size must be a whole number; found 'many'"),
    (["--optim.batch_size", "1.5"], r"must be a whole number; found '1\.5'"),
    (["--optim.batch_size"], r"option --optim\.batch_size needs a value"),
    (["--optim.batch_size", "8", "9"], r"takes one value; found '8 9'"),
    (["--pretexts.grid_msk.weight", "1"], r"unknown pretext 'grid_msk'\. Did you mean 'grid_mask'"),
    (["--pretexts.grid_mask.gird", "3"], r"Did you mean 'pretexts\.grid_mask\.grid'"),
    (["--pretexts.grid_mask.hidden", "on"], r"unknown value of pretexts\.grid_mask\.hidden 'on'\. Did you mean 'one'"),
    (["--decoder.name", "stage"], r"unknown decoder 'stage'\. Did you mean 'stages'"),
    (["--tasks.cars.source", "x", "--tasks.cars.kind", "multilabel"], r"'multilabel'\. Did you mean 'multi_label'"),
    (["--tasks.cars.label", "x"], r"option tasks\.cars\.source is missing"),
    (["--image_size", "huge"], r"image_size must be N or H,W"),
    (["--data.skip_unreadable", "perhaps"], r"must be true or false; found 'perhaps'"),
    (["--reconstruct.split", "val"], r"unknown option 'reconstruct\.split'"),
    (["stray"], r"options begin with --; found 'stray'"),
    (["--run_dri", "x"], r"unknown option 'run_dri'\. Did you mean 'run_dir'\?"),
    (
        ["--tasks.pets", "folder/x"],
        r"tasks\.pets names a task.*: give its source as --tasks\.pets\.source folder/x\.",
    ),
    (["--tasks.pets"], r"give its source as --tasks\.pets\.source folder/PATH\."),
    (["--pretexts.blur", "2"], r"pretexts\.blur names a pretext, .*: add it with --pretexts\.blur\.weight 1\."),
    (
        ["--pretexts.my_own.weight", "1"],
        r"unknown pretext 'my_own'.* If a file of yours defines it, .*--plugins",
    ),
    (["--optim", "5"], r"optim is a section of options: give one of them, as --optim\.OPTION VALUE; found '5'"),
    (["--optmi.steps", "5"], r"unknown section 'optmi'\. Did you mean 'optim'\?"),
    (["--steps", "5"], r"unknown option 'steps'\. Did you mean 'optim\.steps'\?"),
    (["--learning-rate", "1"], r"unknown option 'learning_rate'\. Did you mean 'optim\.learning_rate'\?"),
    (["--optim.tensorboard", "1"], r"unknown option 'optim\.tensorboard'\. Did you mean 'track\.tensorboard'\?"),
    (["--track.zzz", "5"], r"unknown option 'track\.zzz'\. Known: track\."),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(*words)


def test_a_printed_config_reads_back_to_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--stage", "pretrain", "--pretexts.blur.sigma", "1.5", "--seed", "3", "--image_size", "48,64"]
    assert main([*words, "--print_config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "run.yaml").write_text(printed)
    assert main(["--config", str(tmp_path / "run.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    assert yaml.safe_load(printed)["pretexts"]["blur"]["sigma"] == 1.5


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda file: file.name)
def test_shipped_configs_resolve_and_open_with_their_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(file), "--print_config"]) == 0
    head = file.read_text().splitlines()[0]
    assert head.startswith("#") and "python train.py" in head and file.name in head


@pytest.mark.parametrize("stage", STAGES.names())
def test_every_option_is_in_the_help_with_a_default_and_a_meaning(stage: str) -> None:
    entries = help_text(stage).split("\n  --")[1:]
    for entry in entries:
        name, _, meaning = entry.partition("\n")
        assert len(meaning.split()) >= 3, name
    listed = [entry.split()[0] for entry in entries]
    assert {"seed", "device", "image_size", "init_from", "config", "run_dir", "print_config"} <= set(listed)


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    assert imported_by("--help", ("torch", "timm", "cv2", "numpy", "matplotlib", "pydantic")) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES.names())
def test_help_of_a_stage_imports_only_torch(stage: str) -> None:
    assert imported_by(f"--stage {stage} --help", ("timm", "kornia", "accelerate", "torchvision", "matplotlib")) == []


def imported_by(command: str, packages: tuple[str, ...]) -> list[str]:
    """Return those of `packages` that a command imports in a new process."""
    code = (
        f"import sys; from vision_mtl.cli.command import main; main({command.split()!r}); "
        f"print([name for name in {packages!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return literal_eval(done.stderr.strip())


def test_a_config_that_is_no_yaml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1")
    assert main(["--stage", "pretrain", "--config", str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml is not YAML" in capsys.readouterr().err
    assert main(["--stage", "pretrain", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read the config file" in capsys.readouterr().err


def test_no_stage_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "which stage?" in capsys.readouterr().err
    assert main(["--stage", "pretrian"]) == 2
    assert "Did you mean 'pretrain'" in capsys.readouterr().err
    assert main(["--version"]) == 0


def test_views_of_another_size_share_no_batch_and_need_a_backbone_that_takes_them() -> None:
    small = {"pretexts": {"contrast": {"view_size": 48}}}
    alone = config(file=small)
    assert build_model(alone, build_pretexts(alone)).backbone.image_size == (64, 64)
    mixed = config(file={"pretexts": {**small["pretexts"], "decolorise": None}})
    with pytest.raises(UserError, match=r"pretexts\.contrast\.view_size makes images of 48 x 48 pixels, which cannot"):
        build_pretexts(mixed)
    with pytest.raises(UserError, match="those of tasks and other pretexts, 64 x 64: leave it at 0"):
        build_pretexts(resolve("joint", small, {}))
    fixed = config(file={**small, "backbone": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8}}})
    with pytest.raises(UserError, match=r"vit_tiny_patch16_224 takes images of 64 x 64 pixels only, .* them 48 x 48"):
        build_model(fixed, build_pretexts(fixed))
