"""The options that exist: by dotted name, for a stage with its tasks, pretexts and decoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vision_mtl.config import COMMAND_OPTIONS
from vision_mtl.config.options import Option, is_mapping, options_of
from vision_mtl.config.run_config import DEFAULT_DECODER, NAMED_SECTIONS, SECTIONS, General
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError, nearest, unknown
from vision_mtl.data.options import Task
from vision_mtl.models.decoder import DECODERS
from vision_mtl.pretext.contract import PRETEXTS

# removed options: dotted name -> (its default, under which it is ignored; what to do instead)
RETIRED: dict[str, tuple[Any, str]] = {
    "runtime.tune": ("none", "docs/measured.md lists what each setting of the machine gains."),
    "runtime.tuned": ({}, "docs/measured.md lists what each setting of the machine gains."),
}
# options that runs may be older than: dotted name, or name in every task -> the value that those runs behaved as
ADDED: dict[str, Any] = {
    "backbone.input_size": 0,
    "data.image": None,
    "data.same_content": "warn",
    "data.other_folders": "leave_out",
    "data.split_rule": "independent",
    "data.split_file": None,
    "data.validation_labels": "all",
    "data.value_range": None,
    "data.rgb_bands": None,
    "score.images": 500,
    "score.validation_images": 0,
    "score.probe_images": 0,
    "study.earlier_pretexts": True,
    "study.earlier_pretraining": True,
    "study.rope": 0.0,
    "joint.consistency_weight": 0.0,
    "joint.consistency_threshold": 0.95,
    "joint.consistency_ratio": 0.5,
    "joint.consistency_images": {},
    "pretexts.downsample.enlarged": "bicubic",
    "pretexts.neighbour.colours": "keep",
    "pretexts.contrast.criterion": "nt_xent",
    "pretexts.contrast.damage": {},
    "probe.crops": 1,
}
ADDED_TO_TASKS: dict[str, Any] = {"image": None, "missing": None, "value_range": None}
# options whose default changed: dotted name -> the defaults of earlier versions, with which their runs resume
CHANGED: dict[str, tuple[Any, ...]] = {
    "backbone.name": ("resnet18",),
    "optim.steps": (None,),
    "optim.batch_size": (64,),
    "optim.learning_rate": (4e-3,),
    "track.num_probes": (3, 1),
    "track.num_pictures": (2,),
    "score.images": (200,),
    "score.probe_images": (1000,),
}
MAX_LISTED = 24  # names in an error message

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
    if section == "decoder":
        choice = Option("decoder.name", str, DEFAULT_DECODER, "Decoder that turns the backbone's maps into pictures")
        return {choice.name: choice} | _prefixed("decoder", options_of(DECODERS.get(decoder)))
    if section in SECTIONS:
        return _prefixed(section, options_of(SECTIONS[section]))
    components: dict[str, type] = {}
    components |= {name: Task for name in tasks} if section == "tasks" else {n: PRETEXTS.get(n) for n in pretexts}
    found: Schema = {}
    for name, component in components.items():
        found |= _prefixed(f"{section}.{name}", options_of(component))
    return found


def belongs_elsewhere(stage: str, key: str) -> bool:
    """Return True if `key` is an option of another stage, or of a section that `stage` does not read."""
    section, _, rest = key.partition(".")
    found = _prefixed(section, options_of(STAGES.get(section))) if section in STAGES.names() else {}
    if section in (*SECTIONS, *NAMED_SECTIONS) and section not in STAGES.get(stage).sections:
        name = rest.partition(".")[0]
        pretexts = [name] if name in PRETEXTS.names() else []
        for decoder in DECODERS.names() if section == "decoder" else [DEFAULT_DECODER]:
            found |= section_options(section, [name], pretexts, decoder)
    return key in found


CHANNELS = {  # is it the stage data, option -> what to give instead
    (False, "data.channels"): "data.channels is an option of --stage data alone. A network for images of N channels is "
    "--backbone.in_chans N; a run that starts from another has its channels.",
    (True, "backbone.in_chans"): "backbone.in_chans is an option of the stages with a network: --stage data has "
    "--data.channels N.",
}


def unknown_option(stage: str, key: str, schema: Mapping[str, Option], value: object = None) -> UserError:
    """Return the error for an option that this stage does not have, with what was probably meant by `key` = `value`.

    Raises `UserError` for an unknown pretext.
    """
    section, _, name = key.partition(".")
    sections = {*SECTIONS, *NAMED_SECTIONS}
    if key in COMMAND_OPTIONS:
        return UserError(f"{key} is given on the command line, as --{key}, not in a config file.")
    if key in sections:
        return UserError(f"{key} is a section of options: give one of them, as --{key}.OPTION VALUE; found {value!r}.")
    if section == "tasks" and "." not in name:
        source = value if isinstance(value, str) and value else "folder/PATH"
        return UserError(f"{key} names a task, not an option: give its source as --{key}.source {source}.")
    if (stage == "data", key) in CHANNELS:
        return UserError(CHANNELS[stage == "data", key])
    option, _, entry = key.rpartition(".")[0].rpartition(".")
    if option in schema and is_mapping(schema[option]):
        return UserError(
            f"{option} holds a mapping, of which an entry is given whole: --{option}.{entry} "
            f"'{{{key.rpartition('.')[2]}: {value}}}'."
        )
    if section == "pretexts":
        PRETEXTS.file(name.partition(".")[0])  # raises for an unknown name
        if "." not in name:
            return UserError(f"{key} names a pretext, not an option: add it with --{key}.weight 1.")
    if belongs_elsewhere(stage, key) or belongs_elsewhere(stage, key.rpartition(".")[0]):
        return UserError(
            f"unknown option {key!r} for stage {stage}: it belongs to another stage, or to a section that this stage "
            "does not read. Leave it out."
        )
    if name and section not in {*sections, *STAGES.names()}:
        return unknown("section", section, sections)
    return _unknown_name(key, schema)


def _unknown_name(key: str, schema: Mapping[str, Option]) -> UserError:
    """Return the error with the nearest option: one of this very name elsewhere, or a similar one, siblings first."""
    parent, _, last = key.rpartition(".")
    siblings = [name for name in schema if name.rpartition(".")[0] == parent]
    if not parent:
        siblings += COMMAND_OPTIONS
    same = next((name for name in schema if name.rpartition(".")[2] == last), None)
    groups = [] if parent else sorted({f"{name.partition('.')[0]}.*" for name in schema if "." in name})
    guess = same or _nearest_name(last, siblings) or nearest(f"{last}.*", groups) or _nearest_name(last, schema)
    hint = f" Did you mean {guess!r}?" if guess else ""
    listed = [*sorted(siblings), *groups]
    more = ", ..." if len(listed) > MAX_LISTED else ""
    return UserError(f"unknown option {key!r}.{hint} Known: {', '.join(listed[:MAX_LISTED])}{more}.")


def _nearest_name(last: str, names: Iterable[str]) -> str | None:
    """Return the dotted name whose last part is most like `last`: a shared section makes no names alike."""
    by_last = {name.rpartition(".")[2]: name for name in names}
    found = nearest(last, by_last)
    return None if found is None else by_last[found]


def _prefixed(prefix: str, options: Sequence[Option]) -> Schema:
    return {f"{prefix}.{option.name}": replace(option, name=f"{prefix}.{option.name}") for option in options}
