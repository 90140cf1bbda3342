"""Resolve a config file, the command line and what a run inherits into one typed config.

Later sources win: the defaults of the components, those of the stage, values inherited by `--init_from`, the file, the
command line. Values are checked against the types of the options (`config.options`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vision_mtl.config.options import REQUIRED, convert, from_words, is_mapping, options_of, read_yaml
from vision_mtl.config.run_config import (
    DEFAULT_DECODER,
    NAMED_SECTIONS,
    REPAIRS,
    SECTIONS,
    General,
    RunConfig,
    Stage,
    read_section,
)
from vision_mtl.config.schema import (
    ADDED,
    CHANGED,
    RETIRED,
    Schema,
    belongs_elsewhere,
    build_schema,
    unknown_option,
)
from vision_mtl.config.stage import STAGES
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import CONFIG
from vision_mtl.core.shapes import parse_image_size

DEFAULT_UNLABELLED = ["bundled/photos"]
DEFAULT_TASKS = {
    "digits": {"source": "bundled/digits"},
    "cars": {"source": "rendered/cars", "augment": "mirror"},
    "faces": {"source": "rendered/faces", "augment": "mirror"},
    "pets": {"source": "rendered/pets", "augment": "mirror"},
}
# a new run must have the same values as the run that it starts from
MUST_MATCH = ("backbone.name", "backbone.kwargs", "backbone.in_chans", "backbone.input_size", "image_size")
SELECTION = "selection"  # --selection FILE is short for --STAGE.selection FILE

Values = dict[str, Any]  # dotted name -> value
Words = Mapping[str, Sequence[str]]  # dotted name -> the words after it on the command line


@dataclass(frozen=True)
class GivenOptions:
    """The options that a user gave: `file` in YAML, `options` from Python, `words` on the command line."""

    file: Values
    options: Values
    words: Words

    @property
    def values(self) -> Values:
        """The file's values, overridden by those from Python."""
        return {**self.file, **self.options}

    @property
    def names(self) -> list[str]:
        """Every dotted name."""
        return [*self.values, *self.words]

    def text(self, name: str) -> str | None:
        """Return the text given last: words over options over file; None if it was not given."""
        value = self.words[name][-1] if self.words.get(name) else self.values.get(name)
        return None if value is None or value == "null" else str(value)


@dataclass(frozen=True)
class Inherited:
    """What a run takes from `--init_from`: the checkpoint, and values by dotted name."""

    checkpoint: Path | None = None
    values: Values = field(default_factory=dict)

    def without(self, *prefixes: str) -> Inherited:
        """Return a copy without the values whose names begin with one of `prefixes`."""
        return replace(self, values={k: v for k, v in self.values.items() if not k.startswith(prefixes)})


def resolve(
    stage: str,
    file: Mapping[str, Any],
    words: Words,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> RunConfig:
    """Return the config of a run from a config file's content, the command line's words, and nested values from Python.

    A run in `folder` that is older than an option resumes with the value that it behaved as, if no other is given. A
    section of `file` that the stage does not read is ignored after its names are checked. Raises `UserError` for a
    value of the wrong type, and for an unknown option, with the nearest name.
    """
    kind = STAGES.get(stage)
    given = GivenOptions(
        _with_full_names(kind, flatten(stage, file)),
        _with_full_names(kind, flatten(stage, options or {})),
        _with_full_names(kind, _without_retired_words(words)),
    )
    start = given.text("init_from")
    inherited = inherit(start, kind) if start else Inherited()
    before = _values_before(folder)
    pretexts, mixture, inherited = _choose_pretexts(kind, given, inherited, before)
    tasks, images, inherited = _choose_images(kind, given, inherited)
    decoder = given.text("decoder.name") or inherited.values.get("decoder.name") or DEFAULT_DECODER
    schema = build_schema(stage, tasks, pretexts, decoder)

    explicit = _converted(stage, schema, given)
    if start:
        _refuse_contradictions(explicit, inherited.values, start)
    defaults = {key: option.default for key, option in schema.items() if option.default is not REQUIRED}
    values = defaults | _known(images | mixture, schema) | _known(inherited.values, schema)
    values |= _known(_as_begun(before), schema) | explicit
    for end, other in (("optim.steps", "optim.max_seconds"), ("optim.max_seconds", "optim.steps")):
        if explicit.get(end) is not None and other not in explicit and other in schema:
            values[other] = None  # one end alone: the other's default does not count
    for key, option in schema.items():
        if key not in values:
            raise UserError(f"option {key} is missing: give --{key} ({option.help}).")
    notes = retired_notes(file) + retired_notes(options or {}) + _inherited_rule_notes(values, explicit, given)
    return replace(build_config(stage, values), start=inherited.checkpoint, notes=notes)


def flatten(stage: str, file: Mapping[str, Any]) -> Values:
    """Return a nested mapping by dotted names, down to the options that hold mappings (`backbone.kwargs`).

    Retired options are left out; `retired_notes` warns of those not at their default. Raises `UserError` for a file of
    another stage.
    """
    found: Values = {}

    def walk(name: str, value: Any) -> None:
        section, depth = name.partition(".")[0], name.count(".")
        if section == "pretexts" and depth == 1 and value in (None, {}):
            found[f"{name}.weight"] = 1.0  # `pretexts: {blur: }`: blur with its defaults
        elif isinstance(value, Mapping) and depth < (2 if section in ("tasks", "pretexts") else 1):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        else:
            found[name] = value

    for key, value in file.items():
        if key == "stage" and value != stage:
            raise UserError(f"the config file is for stage {value!r}, but --stage is {stage!r}.")
        if value == {}:
            value = None
        is_empty = value is None and key in (*SECTIONS, *NAMED_SECTIONS, *STAGES.names())
        if key != "stage" and not is_empty:
            walk(str(key), value)
    return without_retired(found)


def without_retired(values: Mapping[str, Any]) -> Values:
    """Return the values less the retired options, as old files and run folders hold them."""
    retired = [key for key in values for name in RETIRED if key == name or key.startswith(f"{name}.")]
    return {key: value for key, value in values.items() if key not in retired}


def retired_notes(file: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning for each retired option of a file that is not at its default."""
    given = {f"{section}.{key}": v for section, values in file.items() if isinstance(values, Mapping)
             for key, v in values.items()}  # fmt: skip
    return tuple(
        f"option {name} was removed and is ignored: {instead}"
        for name, (default, instead) in RETIRED.items()
        if name in given and given[name] != default
    )


def _without_retired_words(words: Words) -> Words:
    """Return the words less the retired options at their default; raises `UserError` for another value."""
    for name, (default, instead) in RETIRED.items():
        for key in words:
            if key.startswith(f"{name}.") or (key == name and read_yaml(key, " ".join(words[key])) != default):
                raise UserError(f"option {name} was removed: {instead}")
    return {key: words[key] for key in without_retired(words)}


def with_added(section: str, values: Mapping[str, Any]) -> Values:
    """Return a section's values as an old run or checkpoint holds them, with the options that it lacks."""
    return _below(section, ADDED) | dict(values)


def with_added_to_pretexts(pretexts: Mapping[str, Mapping[str, Any]]) -> dict[str, Values]:
    """Return the options of each pretext as an old run or selection holds them, with those that it lacks."""
    return {name: with_added(f"pretexts.{name}", options or {}) for name, options in pretexts.items()}


def _values_before(folder: Path | None) -> Values:
    """Return the values of the run in `folder` that is resumed, by dotted name; empty for a new run."""
    if folder is None or not (folder / CONFIG).exists():
        return {}
    before = read_config(folder / CONFIG)
    return flatten(before.get("stage", ""), before)


def _as_begun(before: Values) -> Values:
    """Return the options that a resumed run is older than, or whose default changed, with the values it behaved as.

    Resuming writes them into its config, so an option that has this value there counts too.
    """
    if not before:
        return {}
    added = {key: value for key, value in ADDED.items() if before.get(key, value) == value}
    return added | {key: before[key] for key, values in CHANGED.items() if key in before and before[key] in values}


def _inherited_rule_notes(values: Values, explicit: Values, given: GivenOptions) -> tuple[str, ...]:
    start = given.text("init_from")
    if start is None or "data.split_rule" in explicit or values.get("data.split_rule") != "independent":
        return ()
    return (
        f"data.split_rule independent is inherited from --init_from {start}, so that its test images stay test images; "
        "--data.split_rule proportional divides each class in proportion.",
    )


def names_in(section: str, keys: Iterable[str]) -> list[str]:
    """Return the names in `section.NAME.option` keys, in order, each once."""
    found = [key.split(".")[1] for key in keys if key.startswith(f"{section}.") and key.count(".") >= 2]
    return list(dict.fromkeys(found))


def inherit(where: str, kind: type[Stage]) -> Inherited:
    """Return the checkpoint of a run or file, and the options that a stage inherits from it by dotted name.

    Raises `UserError` if there is no checkpoint.
    """
    from vision_mtl.training.checkpoint import find_checkpoint, read_state  # late: most commands need no checkpoint

    path = find_checkpoint(Path(where).expanduser())
    state = read_state(path)
    found: Values = {"image_size": state["image_size"]}
    data = with_added("data", state.get("data", {}))
    found["data.split_rule"] = data["split_rule"]
    backbone = with_added("backbone", state.get("backbone", {}))
    state = {**state, "data": data, "backbone": backbone, "pretexts": with_added_to_pretexts(state.get("pretexts", {}))}
    for section in ["backbone", "decoder"] + (["data"] if kind.inherits_images else []):
        found |= {f"{section}.{key}": value for key, value in state.get(section, {}).items()}
    for section in ["pretexts"] + (["tasks"] if kind.inherits_images else []):
        found |= named_values(section, state.get(section, {}))
    found["backbone.pretrained"] = False  # the weights come from the run
    found.pop("data.validation_labels", None)  # it concerns how this run chooses, not what it starts from
    return Inherited(path, found)


def build_config(stage: str, values: Mapping[str, Any]) -> RunConfig:
    """Return the typed config of converted values by dotted name; components check their own values."""
    kind = STAGES.get(stage)
    own = {option.name for option in options_of(kind)}
    general = {option.name: values[option.name] for option in options_of(General)}
    general["image_size"] = parse_image_size(general["image_size"])
    sections: dict[str, Any] = {}
    for section in kind.sections:
        found = _below(section, values)
        if section in ("tasks", "pretexts"):
            found = {name: _below(name, found) for name in names_in(section, values)}
        elif section == stage:  # the options of a stage that has the name of a section are among the section's
            found = {key: value for key, value in found.items() if key not in own}
        sections[section] = read_section(section, found)
    options = kind(**{key: value for key, value in _below(stage, values).items() if key in own})
    return RunConfig(stage=stage, **general, options=options, **sections)


def _below(prefix: str, values: Mapping[str, Any]) -> Values:
    """Return the values whose names begin with `prefix.`, without it."""
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def named_values(section: str, components: Mapping[str, Mapping[str, Any]]) -> Values:
    """Return `{NAME: {option: value}}` by dotted names."""
    return {f"{section}.{n}.{key}": value for n, options in components.items() for key, value in options.items()}


def _with_full_names(kind: type[Stage], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with `selection` under its full name, if the stage has one."""
    if SELECTION not in {option.name for option in options_of(kind)}:
        return dict(options)
    return {f"{kind.registered_name}.{key}" if key == SELECTION else key: value for key, value in options.items()}


def _choose_pretexts(
    kind: type[Stage], given: GivenOptions, inherited: Inherited, before: Values
) -> tuple[list[str], Values, Inherited]:
    """Return the mixture's names, the options of the default mixture by dotted name, and what is still inherited.

    A file's `pretexts` replaces the mixture, the command line adds to it. A selection file brings the pretexts that it
    was made from; their options replace the inherited ones. A run that began with the earlier mixture keeps it.
    """
    written = names_in("pretexts", given.values)
    base = written or names_in("pretexts", inherited.values)
    if selection := given.text(f"{kind.registered_name}.{SELECTION}"):
        from vision_mtl.discovery.selection import read_about  # late: most commands have no selection

        about = read_about(Path(selection).expanduser())
        damages = named_values("pretexts", with_added_to_pretexts(about["pretexts"]))
        base = written or names_in("pretexts", damages)
        inherited = replace(inherited, values=inherited.without("pretexts.").values | damages)
    mixture: Values = {}
    if not base:
        names = names_in("pretexts", before)
        is_earlier = names[: len(REPAIRS)] == list(REPAIRS) and not kind.default_pretexts.keys() <= set(names)
        chosen = REPAIRS if is_earlier else kind.default_pretexts
        base, mixture = list(chosen), named_values("pretexts", chosen)
    return list(dict.fromkeys([*base, *names_in("pretexts", given.words)])), mixture, inherited


def _choose_images(kind: type[Stage], given: GivenOptions, inherited: Inherited) -> tuple[list[str], Values, Inherited]:
    """Return the names of the tasks, the default images by dotted name, and what is still inherited.

    Given images or tasks replace those of the run to start from. Without either, the embedded default is used.
    """
    replaced = any(key == "data.unlabelled" or key.startswith("tasks.") for key in given.names)
    if replaced and not kind.adds_tasks:
        inherited = inherited.without("data.unlabelled", "tasks.")
    if not kind.uses_unlabelled:
        inherited = inherited.without("data.unlabelled")
    tasks, from_run = names_in("tasks", given.names), names_in("tasks", inherited.values)
    if kind.adds_tasks:
        tasks = list(dict.fromkeys([*from_run, *tasks]))
    is_default = not (replaced or from_run or "data.unlabelled" in inherited.values)
    images: Values = {"data.unlabelled": list(DEFAULT_UNLABELLED) if is_default and kind.uses_unlabelled else []}
    if is_default and "tasks" in kind.sections:
        images |= named_values("tasks", DEFAULT_TASKS)
    return tasks or from_run or names_in("tasks", images), images, inherited


def _known(values: Mapping[str, Any], schema: Schema) -> Values:
    return {key: value for key, value in values.items() if key in schema}


def _converted(stage: str, schema: Schema, given: GivenOptions) -> Values:
    """Return the given values by name, converted to the options' types; Python overrides the file, words override both.

    Only a file may hold options that this stage does not read.
    """
    values: Values = {}
    for source in (given.file, given.options):
        for key, value in source.items():
            if key in schema:
                values[key] = convert(schema[key], value)
            elif source is given.options or not belongs_elsewhere(stage, key):
                raise unknown_option(stage, key, schema, value)
    for key, words in given.words.items():
        option, _, entry = key.rpartition(".")
        if key in schema:
            values[key] = convert(schema[key], from_words(schema[key], words))
        elif option in schema and is_mapping(schema[option]):
            before = values.get(option)  # a mapping takes the place of another value
            others = before if isinstance(before, Mapping) else {}
            values[option] = convert(schema[option], {**others, entry: read_yaml(key, " ".join(words))})
        else:
            raise unknown_option(stage, key, schema, " ".join(words))
    return values


def _refuse_contradictions(explicit: Mapping[str, Any], inherited: Mapping[str, Any], start: str) -> None:
    for key in MUST_MATCH:
        if key not in explicit:
            continue
        own, theirs = explicit[key], inherited.get(key)
        if key == "image_size":
            own, theirs = parse_image_size(own), parse_image_size(inherited[key])
        if own != theirs:
            raise UserError(
                f"--{key} {explicit[key]} contradicts --init_from {start}, which has {theirs}: leave one of them out."
            )
