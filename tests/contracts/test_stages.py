"""What every stage must have: sections, options of its own with help, and a recipe that is a function."""

import inspect

import pytest

from vision_mtl.config.options import read_options, registered_class, summary
from vision_mtl.config.resolve import SIMPLE_SECTIONS, resolve
from vision_mtl.config.stage import STAGES, sections

KNOWN = {*SIMPLE_SECTIONS, "tasks", "pretexts", "decoder"}


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_declares_what_it_reads(name: str) -> None:
    assert set(sections(name)) <= KNOWN
    assert summary(STAGES.file(name)).endswith((".", ":"))
    stage = STAGES.get(name)
    positional = [p.name for p in inspect.signature(stage).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["config", "run"]
    for option in read_options(STAGES.file(name), registered_class(STAGES.file(name))):
        assert option.help, option.name


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_resolves_without_any_option(name: str) -> None:
    config = resolve(name, {}, {})
    assert config.stage == name
    for section in sections(name):
        assert isinstance(getattr(config, section), dict)
