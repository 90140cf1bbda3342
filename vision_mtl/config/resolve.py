"""One run's options: what there is, what was given, and what it resolves to.

Every option is read from a signature (`core.options`), so there is no second list to keep. Values are checked against
the signatures' annotations by jsonargparse. Nothing here imports PyTorch, so `--help` and mistakes are answered
at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vision_mtl.config.options import REQUIRED, Option, read_options, registered_class
from vision_mtl.config.stage import STAGES, sections
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.registry import Registry
from vision_mtl.core.shapes import parse_image_size

HERE = Path(__file__).parent.parent
SIMPLE_SECTIONS = {
    "data": ("data/options.py", "Data"),
    "backbone": ("models/backbone.py", "Backbone"),
    "optim": ("training/optimiser.py", "Optim"),
    "balance": ("training/balancing/options.py", "Balance"),
    "runtime": ("training/runtime.py", "Runtime"),
    "track": ("training/tracking.py", "Track"),
}
DEFAULT_DECODER = "stages"
DEFAULT_PRETEXTS = ("grid_mask", "decolorise", "downsample")
DEFAULT_UNLABELLED = ["bundled/photos"]
DEFAULT_TASKS = {
    "digits": {"source": "bundled/digits"},
    "cars": {"source": "rendered/cars", "augment": "mirror"},
    "faces": {"source": "rendered/faces", "augment": "mirror"},
    "pets": {"source": "rendered/pets", "augment": "mirror"},
}
INHERITED = ("backbone.name", "backbone.kwargs", "backbone.in_chans", "image_size")  # a contradiction is an error
# stages that look at the images and tasks of the run that they start from, unless others are given
FROM_ITS_RUN = ("reconstruct", "probe", "finetune", "joint", "add_task", "explore")
LABELLED_ONLY = ("probe", "finetune", "add_task")  # stages without a use for unlabelled images
ADDS_TASKS = ("add_task",)  # given tasks stand beside the run's own
STAGE_DEFAULTS: dict[str, dict[str, Any]] = {  # where a stage has other ones than the component's own
    "discover": {
        "pretexts.grid_mask.grid": [2, 3, 4, 6, 8],
        "pretexts.downsample.factor": [2, 4, 8],
        "optim.max_seconds": 110.0,
    },
    "study": {  # its runs are many: each has a core, and keeps little
        "runtime.num_threads": 1,
        "track.num_probes": 0,
        "track.num_pictures": 0,
        "track.keep_checkpoints": 1,
        "track.tensorboard": False,
    },
}
SELECTION = "selection"  # --selection FILE, short for the option of this name of the stage
TYPES = {"Literal": Literal, "Any": Any}

# names only: their files are found without importing them, and the registries proper need PyTorch
_DECODERS: Registry[Any] = Registry("decoder", "vision_mtl.models.decoders")
_PRETEXTS: Registry[Any] = Registry("pretext", "vision_mtl.pretext")
_LABEL_KINDS: Registry[Any] = Registry("kind of label", "vision_mtl.tasks")


@dataclass(frozen=True, kw_only=True)
class General:
    """Options of every stage."""

    seed: int = 0  # of initial weights, batches and damage; splits have their own, data.split_seed
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where the arithmetic runs; auto: cuda, else mps, else cpu
    image_size: int | str | list[int] = 64  # pixels: N, or H,W
    init_from: str | None = None  # run folder or checkpoint whose weights, backbone and image size a new run takes over


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A resolved config: plain values, one mapping for each section that the stage reads."""

    stage: str
    seed: int
    device: str
    image_size: tuple[int, int]
    init_from: str | None
    data: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    pretexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    decoder: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    balance: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    track: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)  # the stage's keyword-only parameters
    start: Path | None = None  # the checkpoint that init_from means: found, and whole, when this was resolved

    def to_yaml(self) -> str:
        """What `config.yaml` holds and `--print_config` prints; `--config` reads it back to the same config."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["image_size"] = list(self.image_size)
        del values["start"]
        own = values.pop("own")
        values |= {self.stage: own} if own else {}
        kept = {k: _plain(v) for k, v in values.items() if v != {} or k in sections(self.stage)}
        return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def option_table(stage: str, tasks: Sequence[str], pretexts: Sequence[str], decoder: str) -> dict[str, Option]:
    """Every option of a stage by its dotted name, for these tasks, pretexts and decoder."""
    table = {option.name: option for option in read_options(HERE / "config/resolve.py", "General")}
    chosen = sections(stage)
    for section in chosen:
        if section in SIMPLE_SECTIONS:
            file, name = SIMPLE_SECTIONS[section]
            table |= _prefixed(section, read_options(HERE / file, name))
    if "tasks" in chosen:
        for task in tasks:
            table |= _prefixed(f"tasks.{task}", read_options(HERE / "data/options.py", "Task"))
    if "pretexts" in chosen:
        weight = read_options(HERE / "pretext/contract.py", "Pretext")
        for pretext in pretexts:
            file = _PRETEXTS.file(pretext)
            table |= _prefixed(f"pretexts.{pretext}", (*weight, *read_options(file, registered_class(file))))
    if "decoder" in chosen:
        file = _DECODERS.file(decoder)
        table["decoder.name"] = Option(
            "decoder.name",
            f"Literal{_DECODERS.names()!r}",
            DEFAULT_DECODER,
            "what turns the backbone's maps into pictures",
        )
        table |= _prefixed("decoder", read_options(file, registered_class(file)))
    table |= _prefixed(stage, read_options(STAGES.file(stage), registered_class(STAGES.file(stage))))
    for key, value in STAGE_DEFAULTS.get(stage, {}).items():
        if key in table:
            table[key] = replace(table[key], default=value)
    return table


def _prefixed(prefix: str, options: Sequence[Option]) -> dict[str, Option]:
    return {f"{prefix}.{o.name}": Option(f"{prefix}.{o.name}", o.annotation, o.default, o.help) for o in options}


def resolve(stage: str, file: Mapping[str, Any], given: Mapping[str, list[str]]) -> RunConfig:
    """A config file's content and the command line's (dotted name -> its words) -> the config of the run.

    Raises `UserError` for an unknown option or a value that its annotation does not allow, naming the nearest.
    """
    written, given = _in_full(stage, _flatten(stage, file)), _in_full(stage, given)
    inherited: dict[str, Any] = {}
    checkpoint = None
    tasks = _names("tasks", [*written, *given])
    # a file's `pretexts` replaces the mixture; the command line edits it
    base = _names("pretexts", written) or list(DEFAULT_PRETEXTS)
    start = (given.get("init_from") or [written.get("init_from")])[-1]
    if start:
        checkpoint, inherited = _inherited(str(start), stage)
        base = _names("pretexts", written) or _names("pretexts", inherited) or base
    selection = (given.get(f"{stage}.{SELECTION}") or [written.get(f"{stage}.{SELECTION}")])[-1]
    if selection and selection != "null":
        damages = _selected_damages(str(selection))
        base = _names("pretexts", written) or _names("pretexts", damages)
        inherited = {k: v for k, v in inherited.items() if not k.startswith("pretexts.")} | damages
    pretexts = list(dict.fromkeys([*base, *_names("pretexts", given)]))
    replaced = any(key == "data.unlabelled" or key.startswith("tasks.") for key in [*written, *given])
    if (
        replaced and stage not in ADDS_TASKS
    ):  # other images than the run's own: its sources and tasks are not taken over
        inherited = {k: v for k, v in inherited.items() if k != "data.unlabelled" and not k.startswith("tasks.")}
    if stage in LABELLED_ONLY:
        inherited = {k: v for k, v in inherited.items() if k != "data.unlabelled"}
    own_tasks = _names("tasks", inherited)
    tasks = list(dict.fromkeys([*own_tasks, *tasks])) if stage in ADDS_TASKS else tasks or own_tasks
    decoder = (
        given.get("decoder.name") or [written.get("decoder.name") or inherited.get("decoder.name") or DEFAULT_DECODER]
    )[0]
    uses_defaults = not (replaced or own_tasks or "data.unlabelled" in inherited)
    default_tasks = DEFAULT_TASKS if uses_defaults and "tasks" in sections(stage) else {}
    table = option_table(stage, tasks or list(default_tasks), pretexts, str(decoder))
    values = {key: o.default for key, o in table.items() if o.default is not REQUIRED}
    for name, options in default_tasks.items():
        values |= {f"tasks.{name}.{key}": value for key, value in options.items()}
    if "data.unlabelled" in table:
        values["data.unlabelled"] = list(DEFAULT_UNLABELLED) if uses_defaults and stage not in LABELLED_ONLY else []
    values |= {key: value for key, value in inherited.items() if key in table}
    explicit = _checked(table, written, given)
    for key, value in explicit.items():
        if key.startswith("tasks.") and key.endswith(".kind"):
            _LABEL_KINDS.file(value)  # raises for an unknown kind of label
    if start:
        _refuse_contradictions(explicit, inherited, str(start))
    values |= explicit
    if explicit.get("optim.steps") is not None and "optim.max_seconds" not in explicit:
        values["optim.max_seconds"] = None
    missing = [key for key, o in table.items() if o.default is REQUIRED and key not in values]
    if missing:
        raise UserError(f"option {missing[0]} is missing: give --{missing[0]} ({table[missing[0]].help}).")
    return replace(_nested(stage, values), start=checkpoint)


def _in_full(stage: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with `selection` under its full name, if the stage has one of that name."""
    own = {o.name for o in read_options(STAGES.file(stage), registered_class(STAGES.file(stage)))}
    return {f"{stage}.{k}" if k == SELECTION and k in own else k: value for k, value in options.items()}


def _selected_damages(where: str) -> dict[str, Any]:
    """Dotted options of the pretexts that a selection file was made of."""
    from vision_mtl.discovery.selection import read_about  # late: it imports PyTorch

    pretexts = read_about(Path(where).expanduser())["pretexts"]
    return {f"pretexts.{name}.{key}": value for name, options in pretexts.items() for key, value in options.items()}


def _flatten(stage: str, file: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings -> dotted names, down to the options of mapping type (`backbone.kwargs`)."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        deep = prefix in ("tasks", "pretexts") or "." not in prefix
        if isinstance(value, Mapping) and (
            deep or (prefix.split(".")[0] in ("tasks", "pretexts") and prefix.count(".") == 1)
        ):
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
    return found


def _names(section: str, keys: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The names in `section.NAME.option` keys, in order."""
    return list(
        dict.fromkeys(key.split(".")[1] for key in keys if key.startswith(f"{section}.") and key.count(".") >= 2)
    )


def _checked(table: Mapping[str, Option], written: Mapping[str, Any], given: Mapping[str, list[str]]) -> dict[str, Any]:
    """Values of the given options, converted; the command line's words after the file's."""
    values: dict[str, Any] = {}
    for key, value in written.items():
        values[key] = convert(_known(table, key), value)
    for key, words in given.items():
        option, _, inner = _mapping_option(table, key)
        if inner:
            values[option] = {**(values.get(option) or {}), inner: _yaml_value(key, " ".join(words))}
        else:
            known = _known(table, key)
            values[key] = convert(known, _from_words(known, words))
    return values


def _yaml_value(key: str, text: str) -> Any:
    """What `text` means in YAML; raises `UserError` if it is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"the value of --{key} is not YAML: {' '.join(str(error).split())}") from error


def _mapping_option(table: Mapping[str, Option], key: str) -> tuple[str, str, str]:
    """(`backbone.kwargs`, ".", `output_stride`) for `backbone.kwargs.output_stride`."""
    option, dot, inner = key.rpartition(".")
    if key not in table and option in table and table[option].annotation.startswith("dict"):
        return option, dot, inner
    return key, "", ""


def _known(table: Mapping[str, Option], key: str) -> Option:
    """The option called `key`; raises `UserError` naming the nearest."""
    if key not in table:
        if key.startswith("pretexts.") and key.count(".") == 1:
            raise unknown("pretext", key.partition(".")[2], _PRETEXTS.names())
        raise unknown("option", key, table)
    return table[key]


def _from_words(option: Option, words: list[str]) -> Any:
    """The words after an option on the command line -> a value to convert."""
    if not words:
        if option.annotation.startswith("bool"):
            return True
        raise UserError(f"option --{option.name} needs a value ({option.help}).")
    takes_several = re.match(r"(list|tuple)\b|.*\| list\b", option.annotation) and not words[0].startswith("[")
    if takes_several and (len(words) > 1 or option.annotation.startswith("list")):
        return words
    if len(words) > 1:
        raise UserError(f"option --{option.name} takes one value; found {' '.join(words)!r}.")
    return words[0]


def convert(option: Option, value: Any) -> Any:
    """`value` as the option's annotation has it. Raises `UserError` naming option, rule, value, nearest choice."""
    annotation = eval(option.annotation, {**TYPES})
    if option.annotation.startswith("list") and isinstance(value, str) and not value.startswith("["):
        value = [value]
    if isinstance(value, str) and option.annotation in ("str", "str | None"):
        return None if value == "null" and "None" in option.annotation else value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    try:
        converted = parser.parse_object({"value": value})["value"]
    except (ArgumentError, TypeError) as error:
        raise _value_error(option, value) from error
    if converted is None and value is not None and "None" not in option.annotation:
        raise _value_error(option, value)
    return converted


def _value_error(option: Option, value: Any) -> UserError:
    choices = re.findall(r"'([^']*)'", option.annotation)
    if choices and not re.search(r"\b(int|float|str|bool)\b", option.annotation):
        return unknown(f"value of {option.name}", str(value), choices)
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "None": "null", "str": "text"}
    parts = [part.strip() for part in option.annotation.split("|")]
    plain = [names.get(part, ", ".join(re.findall(r"'([^']*)'", part)) or part) for part in parts]
    meaning = f" ({option.help})" if option.help else ""
    return UserError(f"option {option.name} must be {' or '.join(plain)}; found {value!r}{meaning}.")


def _nested(stage: str, values: Mapping[str, Any]) -> RunConfig:
    """Dotted names -> a `RunConfig`."""
    parts: dict[str, Any] = {f.name: {} for f in fields(RunConfig) if f.default_factory is dict}
    stages_own = {o.name for o in read_options(STAGES.file(stage), registered_class(STAGES.file(stage)))}
    general = {o.name: values[o.name] for o in read_options(HERE / "config/resolve.py", "General")}
    for key, value in values.items():
        section, _, rest = key.partition(".")
        if not rest:
            continue
        if section in ("tasks", "pretexts"):
            name, _, option = rest.partition(".")
            parts[section].setdefault(name, {})[option] = value
        else:
            parts["own" if section == stage and rest in stages_own else section][rest] = value
    general["image_size"] = parse_image_size(general["image_size"])
    return RunConfig(stage=stage, **general, **parts)


def _inherited(where: str, stage: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a run or file means, and the dotted options that it hands on."""
    from vision_mtl.training.checkpoint import find_checkpoint, read_state  # late: it imports PyTorch

    path = find_checkpoint(Path(where).expanduser())
    state = read_state(path)
    found = {"image_size": state["image_size"]}
    handed = ["backbone", "decoder"] + (["data"] if stage in FROM_ITS_RUN else [])
    for section in handed:
        found |= {f"{section}.{key}": value for key, value in state.get(section, {}).items()}
    for section in ["pretexts"] + (["tasks"] if stage in FROM_ITS_RUN else []):
        for name, options in state.get(section, {}).items():
            found |= {f"{section}.{name}.{key}": value for key, value in options.items()}
    found["backbone.pretrained"] = False  # the weights come from the run
    return path, found


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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
