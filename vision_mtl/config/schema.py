"""Which options there are: by their dotted names, for a stage with its tasks, pretexts and decoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vision_mtl.config.options import Option, options_of
from vision_mtl.config.run_config import SECTIONS, General
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError, nearest, unknown
from vision_mtl.data.options import Task
from vision_mtl.models.decoder import DECODERS
from vision_mtl.pretext.contract import PRETEXTS

DEFAULT_DECODER = "stages"
DEFAULT_PRETEXTS = ("grid_mask", "decolorise", "downsample")
# options that are gone: dotted name -> (the value that asked for nothing, what to do instead)
RETIRED: dict[str, tuple[Any, str]] = {
    "runtime.tune": ("none", "docs/measured.md lists what each setting of the machine gains."),
    "runtime.tuned": ({}, "docs/measured.md lists what each setting of the machine gains."),
}

Schema = dict[str, Option]


def build_schema(stage: str, tasks: Iterable[str], pretexts: Iterable[str], decoder: str) -> Schema:
    """Return every option of a stage by its dotted name.

    Raises `UserError` for an unknown stage, pretext or decoder.
    """
    kind = STAGES.get(stage)
    found = {option.name: option for option in options_of(General)}
    for section in kind.sections:
        found |= section_options(section, tasks, pretexts, decoder)
    found |= _prefixed(stage, options_of(kind))
    return found | {key: replace(found[key], default=value) for key, value in kind.defaults.items() if key in found}


def section_options(section: str, tasks: Iterable[str], pretexts: Iterable[str], decoder: str) -> Schema:
    """Return the options of one section by their dotted names."""
    if section == "tasks":
        parts = [_prefixed(f"tasks.{name}", options_of(Task)) for name in tasks]
        return {key: option for part in parts for key, option in part.items()}
    if section == "pretexts":
        parts = [_prefixed(f"pretexts.{name}", options_of(PRETEXTS.get(name))) for name in pretexts]
        return {key: option for part in parts for key, option in part.items()}
    if section == "decoder":
        name = Option("decoder.name", str, DEFAULT_DECODER, "What turns the backbone's maps into pictures")
        return {"decoder.name": name} | _prefixed("decoder", options_of(DECODERS.get(decoder)))
    return _prefixed(section, options_of(SECTIONS[section]))


def is_elsewhere(key: str) -> bool:
    """Whether another stage reads the option `key`, in a section of its own or in one that this stage does not read."""
    section, _, rest = key.partition(".")
    stages = STAGES.names()
    if section in stages and any(option.name == rest.partition(".")[0] for option in options_of(STAGES.get(section))):
        return True
    if section in ("tasks", "pretexts", "decoder"):
        name = rest.partition(".")[0]
        known = {"tasks": [name], "pretexts": [n for n in [name] if n in PRETEXTS.names()], "decoder": DECODERS.names()}
        if section == "decoder":
            return any(key in section_options(section, (), (), decoder) for decoder in known["decoder"])
        return key in section_options(section, known["tasks"], known["pretexts"], DEFAULT_DECODER)
    return section in SECTIONS and rest.partition(".")[0] in {option.name for option in options_of(SECTIONS[section])}


def unknown_option(stage: str, key: str, schema: Mapping[str, Option]) -> UserError:
    """Return the error for an option that this stage does not have, naming what was probably meant."""
    section, _, rest = key.partition(".")
    if key.count(".") == 1 and section == "tasks":
        return UserError(f"{key} needs an option of the task, for example --{key}.source folder/PATH.")
    if key.count(".") == 1 and section == "pretexts":
        return unknown("pretext", rest, PRETEXTS.names())
    if is_elsewhere(key):
        return UserError(
            f"unknown option {key!r} for stage {stage}: it belongs to another stage, or to a section that this stage "
            "does not read. Leave it out."
        )
    sections = sorted({name.partition(".")[0] for name in schema if "." in name})
    if "." in key and section not in {*sections, *SECTIONS, "tasks", "pretexts", "decoder", *STAGES.names()}:
        return unknown("section", section, {*sections, *SECTIONS, "tasks", "pretexts", "decoder"})
    # an option of the same section first: similar letters of another section are rarely what was meant
    own = [name for name in schema if name.rpartition(".")[0] == key.rpartition(".")[0]]
    guess = nearest(key, own) or nearest(key, schema)
    hint = f" Did you mean {guess!r}?" if guess else ""
    listed: Sequence[str] = sorted(own) if "." in key else sorted({*own, *(f"{name}.*" for name in sections)})
    return UserError(
        f"unknown option {key!r}.{hint} Known: {', '.join(listed[:24])}{', ...' if len(listed) > 24 else ''}."
    )


def _prefixed(prefix: str, options: Sequence[Option]) -> Schema:
    return {f"{prefix}.{option.name}": replace(option, name=f"{prefix}.{option.name}") for option in options}
