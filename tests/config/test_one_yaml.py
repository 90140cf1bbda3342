"""One YAML file serves every stage of a project; a name that no stage has is an error for all of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from vision_mtl.config import COMMAND_OPTIONS
from vision_mtl.config.options import options_of
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import SECTIONS, General
from vision_mtl.config.schema import RETIRED
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError

PROJECT: dict[str, Any] = {
    "seed": 3,
    "image_size": 32,
    "data": {"unlabelled": ["images/photos"], "root": "stores"},
    "tasks": {"pets": {"source": "folder/pets"}, "age": {"source": "csv/a.csv", "label": "age", "kind": "regression"}},
    "pretexts": {"grid_mask": {"grid": 3}, "rotation": None},
    "backbone": {"name": "resnet10t", "kwargs": {"output_stride": 16}},
    "decoder": {"name": "stages"},
    "optim": {"steps": 7, "batch_size": 4},
    "balance": {"name": "equal"},
    "runtime": {"precision": "fp32"},
    "track": {"tensorboard": False},
    "score": {"images": 50},
    "finetune": {"label_fraction": 0.5},
    "export": {"onnx": False},
}
KNOWN = ["data", "backbone", "optim", "balance", "runtime", "track", "score", "decoder", "tasks.pets", "pretexts.blur"]


def nested(name: str, value: object) -> dict[str, Any]:
    """Return `{"a": {"b": value}}` for `a.b`."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


@pytest.mark.parametrize("stage", STAGES.names())
def test_every_stage_reads_its_sections_and_ignores_the_others(stage: str) -> None:
    config, kind = resolve(stage, PROJECT, {}), STAGES.get(stage)
    assert (config.seed, config.image_size) == (3, (32, 32))
    for section in SECTIONS:
        values = PROJECT[section] if section in kind.sections else {}
        default = SECTIONS[section]()
        for field in fields(SECTIONS[section]):
            if f"{section}.{field.name}" in kind.defaults or field.name in ("max_seconds", "unlabelled"):
                continue  # from the stage, from optim.steps, or from the images given
            expected = values.get(field.name, getattr(default, field.name))
            assert getattr(getattr(config, section), field.name) == expected, f"{section}.{field.name}"
    assert list(config.tasks) == (["pets", "age"] if "tasks" in kind.sections else [])
    assert list(config.pretexts) == (["grid_mask", "rotation"] if "pretexts" in kind.sections else [])
    if stage == "finetune":
        assert config.options.label_fraction == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", STAGES.names())
def test_an_unknown_name_is_an_error_for_every_stage(stage: str) -> None:
    for section in KNOWN:
        with pytest.raises(UserError, match=r"unknown option '[\w.]*no_such'"):
            resolve(stage, nested(f"{section}.no_such", 1), {})
    for other in STAGES.names():
        with pytest.raises(UserError, match=f"unknown option '{other}.no_such'"):
            resolve(stage, {other: {"no_such": 1}}, {})
    for value in (1, {}, {"steps": 5}, None):
        with pytest.raises(UserError, match=r"unknown (option|section) 'optimm'"):
            resolve(stage, {"optimm": value}, {})
    with pytest.raises(UserError, match="unknown pretext 'grid_msk'"):
        resolve(stage, {"pretexts": {"grid_msk": {"grid": 2}}}, {})


@pytest.mark.parametrize("stage", STAGES.names())
def test_a_name_below_an_option_is_unknown(stage: str) -> None:
    for name in ("optim.steps.more", "data.root.more", "runtime.precision.more"):
        with pytest.raises(UserError, match=f"unknown option '{name}'"):
            section, _, rest = name.partition(".")
            resolve(stage, {section: {rest: 1}}, {})


def test_an_option_of_another_decoder_is_unknown() -> None:
    with pytest.raises(UserError, match=r"unknown option 'decoder\.no_such'"):
        resolve("pretrain", {"decoder": {"name": "stages", "no_such": 1}}, {})


@pytest.mark.parametrize("stage", STAGES.names())
def test_an_empty_section_is_ignored(stage: str) -> None:
    for section in (*SECTIONS, "tasks", "pretexts", "decoder", "finetune"):
        for empty in (None, {}):
            assert resolve(stage, {section: empty}, {}) == resolve(stage, {}, {})


def test_on_the_command_line_a_name_of_another_stage_is_refused() -> None:
    with pytest.raises(UserError, match=r"'optim\.steps' for stage export: it belongs to another stage, or to"):
        resolve("export", {}, {"optim.steps": ["5"]})
    with pytest.raises(UserError, match=r"'backbone\.kwargs\.depth' for stage export: it belongs to another stage"):
        resolve("export", {}, {"backbone.kwargs.depth": ["2"]})
    with pytest.raises(UserError, match=r"'optim\.steps' for stage export"):  # nor from Python
        resolve("export", {}, {}, {"optim": {"steps": 5}})


def test_a_scalar_for_a_section_says_what_is_needed() -> None:
    with pytest.raises(UserError, match=r"optim is a section of options: .* --optim\.OPTION VALUE; found 5"):
        resolve("pretrain", {"optim": 5}, {})
    with pytest.raises(UserError, match="run_dir is given on the command line, as --run_dir, not in a config file"):
        resolve("pretrain", {"run_dir": "runs/x"}, {})


# options that were removed


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "export"])
def test_removed_options_at_their_defaults_are_ignored(stage: str) -> None:
    plain = resolve(stage, {}, {})
    for name, (default, _) in RETIRED.items():
        assert resolve(stage, nested(name, default), {}) == plain
    assert resolve(stage, {}, {"runtime.tune": ["none"], "runtime.tuned": ["{}"]}) == plain
    assert resolve(stage, {}, {}, {"runtime": {"tune": "none", "tuned": {}}}) == plain


@pytest.mark.parametrize(("name", "value"), [("tune", "machine"), ("tuned", {"batch_size": 4})])
def test_removed_options_that_ask_for_something_are_ignored_in_a_file_and_refused_in_a_command(
    name: str, value: object
) -> None:
    (note,) = resolve("pretrain", {"runtime": {name: value}}, {}).notes
    assert note.startswith(f"option runtime.{name} was removed and is ignored: docs/measured.md")
    with pytest.raises(UserError, match=f"option runtime.{name} was removed"):
        resolve("pretrain", {}, {f"runtime.{name}": [str(value)]})


def test_a_name_that_only_begins_like_a_removed_option_is_unknown() -> None:
    with pytest.raises(UserError, match=r"unknown option 'runtime\.tuner'"):
        resolve("pretrain", {"runtime": {"tuner": 1}}, {})


def test_no_option_of_a_stage_is_called_like_one_of_the_command_line() -> None:
    assert not {option.name for option in options_of(General)} & set(COMMAND_OPTIONS)


def test_an_entry_of_a_mapping_is_an_option_of_its_own() -> None:
    words = {"study.rope.pets": ["0.2"], "tasks.pets.source": ["folder/PETS"]}
    assert resolve("study", {"study": {"rope": 0.05}}, words).to_dict()["study"]["rope"] == {"pets": 0.2}
    with pytest.raises(UserError, match=r"entry is given whole: --pretexts.distil.damage.blur '\{weight: 2\}'"):
        resolve("pretrain", {}, {"pretexts.distil.damage.blur.weight": ["2"]})
