"""A config file, the command line and what a run inherits -> one resolved config.

Later sources win: the defaults of the components, those of the stage, what `--init_from` hands on, the file, the
command line. Values are checked against the types of the options (`config.options`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vision_mtl.config.options import REQUIRED, convert, from_words, is_mapping, options_of, read_yaml
from vision_mtl.config.run_config import SECTIONS, General, RunConfig
from vision_mtl.config.schema import (
    DEFAULT_DECODER,
    DEFAULT_PRETEXTS,
    RETIRED,
    Schema,
    build_schema,
    is_elsewhere,
    unknown_option,
)
from vision_mtl.config.stage import STAGES, Stage
from vision_mtl.core.errors import UserError
from vision_mtl.core.shapes import parse_image_size
from vision_mtl.data.options import Task
from vision_mtl.models.decoder import DECODERS
from vision_mtl.pretext.contract import PRETEXTS

DEFAULT_UNLABELLED = ["bundled/photos"]
DEFAULT_TASKS = {
    "digits": {"source": "bundled/digits"},
    "cars": {"source": "rendered/cars", "augment": "mirror"},
    "faces": {"source": "rendered/faces", "augment": "mirror"},
    "pets": {"source": "rendered/pets", "augment": "mirror"},
}
INHERITED = ("backbone.name", "backbone.kwargs", "backbone.in_chans", "image_size")  # a contradiction is an error
SELECTION = "selection"  # --selection FILE, short for the option of this name of the stage

Values = dict[str, Any]  # dotted name -> value
Words = Mapping[str, Sequence[str]]  # dotted name -> the words after it on the command line


@dataclass(frozen=True)
class Given:
    """What a user gave: `file` is a YAML file's values, `options` values from Python, `words` the command line's."""

    file: Values
    options: Values
    words: Words

    @property
    def values(self) -> Values:
        """The file's values under those from Python."""
        return {**self.file, **self.options}

    @property
    def keys(self) -> list[str]:
        """Every dotted name that was given."""
        return [*self.values, *self.words]

    def text(self, key: str) -> str | None:
        """The value of a text option as it was given last; None if it was not."""
        value = self.words[key][-1] if self.words.get(key) else self.values.get(key)
        return None if value is None or value == "null" else str(value)


@dataclass(frozen=True)
class Inherited:
    """What `--init_from` hands on: the checkpoint, and values by dotted name."""

    checkpoint: Path | None = None
    values: Values = field(default_factory=dict)

    def without(self, *prefixes: str) -> Inherited:
        """The same, less the values whose names begin with one of `prefixes`."""
        return replace(self, values={k: v for k, v in self.values.items() if not k.startswith(prefixes)})


def resolve(stage: str, file: Mapping[str, Any], words: Words, options: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the config of a run from a config file's content, the command line's words, and nested values from Python.

    Raises `UserError` for an unknown option or a value that its type does not allow, naming the nearest. A section of
    `file` that the stage does not read is checked and ignored.
    """
    kind = STAGES.get(stage)
    given = Given(
        _with_short_names(kind, flatten(stage, file)),
        _with_short_names(kind, flatten(stage, options or {})),
        _with_short_names(kind, words),
    )
    start = given.text("init_from")
    inherited = inherit(start, kind) if start else Inherited()
    pretexts, inherited = _choose_pretexts(given, inherited, stage)
    replaced = any(key == "data.unlabelled" or key.startswith("tasks.") for key in given.keys)
    if replaced and not kind.adds_tasks:  # other images than the run's: neither its sources nor its tasks are inherited
        inherited = inherited.without("data.unlabelled", "tasks.")
    if not kind.uses_unlabelled:
        inherited = inherited.without("data.unlabelled")
    run_tasks, tasks = names_in("tasks", inherited.values), names_in("tasks", given.keys)
    tasks = list(dict.fromkeys([*run_tasks, *tasks])) if kind.adds_tasks else tasks or run_tasks
    defaults = _default_images(kind, is_default=not (replaced or run_tasks or "data.unlabelled" in inherited.values))
    decoder = given.text("decoder.name") or inherited.values.get("decoder.name") or DEFAULT_DECODER
    schema = build_schema(stage, tasks or names_in("tasks", defaults), pretexts, decoder)

    explicit = _checked(stage, schema, given)
    if start:
        _refuse_contradictions(explicit, inherited.values, start)
    known_defaults = {key: option.default for key, option in schema.items() if option.default is not REQUIRED}
    values = known_defaults | _known(defaults, schema) | _known(inherited.values, schema) | explicit
    if explicit.get("optim.steps") is not None and "optim.max_seconds" not in explicit:
        values["optim.max_seconds"] = None
    missing = [key for key, option in schema.items() if option.default is REQUIRED and key not in values]
    if missing:
        raise UserError(f"option {missing[0]} is missing: give --{missing[0]} ({schema[missing[0]].help}).")
    return replace(build_config(stage, values), start=inherited.checkpoint)


def flatten(stage: str, file: Mapping[str, Any]) -> Values:
    """Return a nested mapping by dotted names, down to the options that hold mappings (`backbone.kwargs`).

    Retired options that ask for nothing are left out. Raises `UserError` for a file of another stage.
    """
    found: Values = {}

    def walk(prefix: str, value: Any) -> None:
        is_named = prefix.split(".")[0] in ("tasks", "pretexts")
        if isinstance(value, Mapping) and prefix.count(".") < (2 if is_named else 1):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
            if prefix.startswith("pretexts.") and not value:
                found[f"{prefix}.weight"] = 1.0
        elif prefix.startswith("pretexts.") and prefix.count(".") == 1 and value is None:
            found[f"{prefix}.weight"] = 1.0  # `pretexts: {blur: }` means blur as it is
        else:
            found[prefix] = value

    for key, value in file.items():
        if key == "stage" and value != stage:
            raise UserError(f"the config file is for stage {value!r}, but --stage is {stage!r}.")
        if key != "stage" and not (isinstance(value, Mapping) and not value):
            walk(str(key), value)
    return without_retired(found)


def without_retired(values: Mapping[str, Any]) -> Values:
    """Return the values less the options that are gone; raises `UserError` for one that asked for something."""
    for key, (nothing, instead) in RETIRED.items():
        if key in values and values[key] != nothing:
            raise UserError(f"option {key} is gone: {instead}")
    return {key: value for key, value in values.items() if not key.startswith(tuple(RETIRED))}


def names_in(section: str, keys: Iterable[str]) -> list[str]:
    """Return the names in `section.NAME.option` keys, in order, each once."""
    found = [key.split(".")[1] for key in keys if key.startswith(f"{section}.") and key.count(".") >= 2]
    return list(dict.fromkeys(found))


def inherit(where: str, kind: type[Stage]) -> Inherited:
    """Return the checkpoint that a run or file means, and the dotted options that it hands on to a stage.

    Raises `UserError` if there is no checkpoint.
    """
    from vision_mtl.training.checkpoint import find_checkpoint, read_state  # late: most commands need no checkpoint

    path = find_checkpoint(Path(where).expanduser())
    state = read_state(path)
    found: Values = {"image_size": state["image_size"]}
    images = kind.inherits_images
    for section in ["backbone", "decoder"] + (["data"] if images else []):
        found |= {f"{section}.{key}": value for key, value in state.get(section, {}).items()}
    for section in ["pretexts"] + (["tasks"] if images else []):
        for name, options in state.get(section, {}).items():
            found |= {f"{section}.{name}.{key}": value for key, value in options.items()}
    found["backbone.pretrained"] = False  # the weights come from the run
    return Inherited(path, found)


def build_config(stage: str, values: Mapping[str, Any]) -> RunConfig:
    """Return the typed config of converted values by dotted name; components check their own values."""
    by_section: dict[str, Values] = {}
    for key, value in values.items():
        section, _, rest = key.partition(".")
        by_section.setdefault(section, {})[rest] = value
    kind = STAGES.get(stage)
    names = {option.name for option in options_of(kind)}
    general = {option.name: values[option.name] for option in options_of(General)}
    sections: dict[str, Any] = {}
    for section in kind.sections:
        found = by_section.get(section, {})
        if section in ("tasks", "pretexts"):
            inner = names_in(section, (f"{section}.{key}" for key in found))
            sections[section] = {name: _component(section, name)(**_inner(found, name)) for name in inner}
        elif section == "decoder":
            options = {key: value for key, value in found.items() if key != "name"}
            sections[section] = DECODERS.get(found.get("name", DEFAULT_DECODER))(**options)
        else:
            shared = names if section == stage else set()
            sections[section] = SECTIONS[section](**{k: v for k, v in found.items() if k not in shared})
    own = {key: value for key, value in by_section.get(stage, {}).items() if key in names}
    general["image_size"] = parse_image_size(general["image_size"])
    return RunConfig(stage=stage, **general, options=kind(**own), **sections)


def _component(section: str, name: str) -> type:
    return Task if section == "tasks" else PRETEXTS.get(name)


def _inner(values: Mapping[str, Any], name: str) -> Values:
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}


def _with_short_names(kind: type[Stage], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with `selection` under its full name, if the stage has one of that name."""
    has = SELECTION in {option.name for option in options_of(kind)}
    full = f"{kind.registered_name}.{SELECTION}"
    return {full if key == SELECTION and has else key: value for key, value in options.items()}


def _choose_pretexts(given: Given, inherited: Inherited, stage: str) -> tuple[list[str], Inherited]:
    """The mixture's names: a file's `pretexts` replaces the mixture, the command line edits it.

    A selection brings the pretexts that it was made of, whose options replace those of the run to start from.
    """
    written = names_in("pretexts", given.values)
    base = written or names_in("pretexts", inherited.values) or list(DEFAULT_PRETEXTS)
    selection = given.text(f"{stage}.{SELECTION}")
    if selection:
        from vision_mtl.discovery.selection import read_about  # late: most commands have no selection

        damages = {
            f"pretexts.{name}.{key}": value
            for name, options in read_about(Path(selection).expanduser())["pretexts"].items()
            for key, value in options.items()
        }
        base = written or names_in("pretexts", damages)
        inherited = replace(inherited, values=inherited.without("pretexts.").values | damages)
    return list(dict.fromkeys([*base, *names_in("pretexts", given.words)])), inherited


def _default_images(kind: type[Stage], *, is_default: bool) -> Values:
    """What a run looks at unless it is told: nothing where images or tasks are given or inherited."""
    found: Values = {"data.unlabelled": list(DEFAULT_UNLABELLED) if is_default and kind.uses_unlabelled else []}
    if is_default and "tasks" in kind.sections:
        for name, options in DEFAULT_TASKS.items():
            found |= {f"tasks.{name}.{key}": value for key, value in options.items()}
    return found


def _known(values: Mapping[str, Any], schema: Schema) -> Values:
    return {key: value for key, value in values.items() if key in schema}


def _checked(stage: str, schema: Schema, given: Given) -> Values:
    """The given values, converted; the command line's after those from Python, after the file's."""
    values: Values = {}
    for source, is_strict in ((given.file, False), (given.options, True)):
        for key, value in source.items():
            if key in schema:
                values[key] = convert(schema[key], value)
            elif is_strict or not is_elsewhere(key):
                raise unknown_option(stage, key, schema)
    for key, words in given.words.items():
        option, _, entry = key.rpartition(".")
        if key not in schema and option in schema and is_mapping(schema[option]):
            values[option] = {**(values.get(option) or {}), entry: read_yaml(key, " ".join(words))}
        elif key in schema:
            values[key] = convert(schema[key], from_words(schema[key], words))
        else:
            raise unknown_option(stage, key, schema)
    return values


def _refuse_contradictions(explicit: Mapping[str, Any], inherited: Mapping[str, Any], start: str) -> None:
    for key in INHERITED:
        if key not in explicit:
            continue
        own, theirs = explicit[key], inherited.get(key)
        if key == "image_size":
            own, theirs = parse_image_size(own), parse_image_size(theirs)
        if own != theirs:
            raise UserError(
                f"--{key} {explicit[key]} contradicts --init_from {start}, which has {theirs}: leave one of them out."
            )
