"""What every stage must have: sections, options of its own with help, and a recipe that is its method `run`."""

import dataclasses
import inspect

import pytest

from vision_mtl.config.options import options_of
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import NAMED_SECTIONS, SECTIONS, Stage
from vision_mtl.config.schema import build_schema
from vision_mtl.config.stage import STAGES


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_declares_what_it_reads(name: str) -> None:
    stage = STAGES.get(name)
    assert set(stage.sections) <= {*SECTIONS, *NAMED_SECTIONS}
    assert STAGES.summary(name).endswith((".", ":"))
    assert issubclass(stage, Stage) and stage.registered_name == name
    assert list(inspect.signature(stage.run).parameters) == ["self", "config", "run"] and stage.run is not Stage.run
    assert dataclasses.fields(stage) == tuple(f for f in dataclasses.fields(stage) if not f.name.startswith("_"))
    for option in options_of(stage):
        assert option.help, option.name


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_resolves_without_any_option(name: str) -> None:
    config = resolve(name, {}, {})
    assert config.stage == name and type(config.options) is STAGES.get(name)
    for section in STAGES.get(name).sections:
        assert isinstance(config.section(section), dict)
        if section in SECTIONS:
            assert type(getattr(config, section)) is SECTIONS[section]


@pytest.mark.parametrize("name", STAGES.names())
def test_what_a_stage_declares_by_name_exists(name: str) -> None:
    stage = STAGES.get(name)
    schema = build_schema(name, ["t"], ["grid_mask", "downsample"], "stages")
    assert set(stage.defaults) <= set(schema)
    own = {key for key in stage.changeable if key.startswith(f"{name}.")}
    assert own <= set(schema)
    if stage.arm is not None:
        assert {option for option in (stage.arm.fraction_option, stage.arm.fractions_option) if option} <= {
            option.name for option in options_of(stage)
        }
