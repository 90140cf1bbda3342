"""One function a stage, with the command line's options as keywords: `vm.pretrain(unlabelled="images/X", steps=5)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from vision_mtl.api.loaded_run import LoadedRun, load_run
from vision_mtl.cli.execute import execute, look
from vision_mtl.config.options import options_of, plain
from vision_mtl.config.plugins import load_plugins
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import NAMED_SECTIONS, SECTIONS, General
from vision_mtl.config.stage import STAGES
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.console import Console, silent_libraries
from vision_mtl.core.errors import UserError
from vision_mtl.core.interruptions import INTERRUPTED

SHORT_NAMES = {  # keyword -> the option that it means
    "unlabelled": "data.unlabelled",
    "backbone": "backbone.name",
    "pretrained": "backbone.pretrained",
    "input_size": "backbone.input_size",
    "decoder": "decoder.name",
    "size": "image_size",
    "steps": "optim.steps",
    "max_seconds": "optim.max_seconds",
    "batch_size": "optim.batch_size",
    "learning_rate": "optim.learning_rate",
}


def run_stage(
    stage: str,
    *,
    run_dir: str | PathLike[str] | None = None,
    config: str | PathLike[str] | Mapping[str, Any] | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    console: str = "auto",
    **options: Any,
) -> LoadedRun:
    """Run a stage in `run_dir` (default: runs/STAGE-TIME) and return the finished run.

    A keyword is a section as a mapping (`optim={"steps": 5}`), a general option (`seed=1`), one of the stage's own
    options (`label_fraction=0.1`) or a short name (`SHORT_NAMES`). `tasks` maps a name to a source or to the task's
    options; `pretexts` is a mapping, or a list of names and of pretexts such as `vm.GridMask(grid=2)`; `init_from`
    takes a run. `config` is a YAML file or its content, below the keywords. As on the command line, the same call with
    the same `run_dir` resumes, and a completed run is returned as it is.

    Raises `UserError` for what the caller can change, `KeyboardInterrupt` if the run was interrupted.
    """
    load_plugins(plugins)
    file = read_config(Path(config)) if isinstance(config, str | PathLike) else dict(config or {})
    kind = STAGES.get(stage)
    given = nested_options(stage, options)
    if not kind.writes_run and run_dir is not None:
        given.setdefault("init_from", fspath(run_dir))
    folder = Path(run_dir or f"runs/{stage}-{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    resolved = resolve(stage, file, {}, given, folder if kind.writes_run else None)
    with silent_libraries():
        if not kind.writes_run:
            look(resolved, Console.of(console))
            return load_run(resolved.init_from or ".")
        if execute(resolved, folder, Console.of(console)) == INTERRUPTED:
            raise KeyboardInterrupt(f"{folder} was interrupted; the same call resumes it.")
    return load_run(folder)


def stage_function(stage: str) -> Callable[..., LoadedRun]:
    """Return `run_stage` for one stage, documented with its options."""

    def function(**options: Any) -> LoadedRun:
        return run_stage(stage, **options)

    own = "\n".join(f"    {o.name} ({o.type_text}): {o.help}." for o in options_of(STAGES.get(stage)))
    function.__name__ = function.__qualname__ = stage
    function.__doc__ = (
        f"{STAGES.summary(stage)}\n\nReturns the finished run; `vision_mtl.run_stage` describes the keywords.\n"
        f"Sections: {', '.join(STAGES.get(stage).sections)}. Options of the stage itself:\n{own}"
    )
    return function


def nested_options(stage: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords as the nested mapping of a config file; raises `UserError` for an option that is given twice."""
    own = {option.name for option in options_of(STAGES.get(stage))}
    general = {option.name for option in options_of(General)}
    found: dict[str, Any] = {}
    for key, value in options.items():
        is_section = key in (*SECTIONS, *NAMED_SECTIONS) and (
            isinstance(value, Mapping) or key in ("tasks", "pretexts")
        )
        if key == "init_from":
            found[key] = fspath(value.folder if isinstance(value, LoadedRun) else value)
        elif is_section:
            values = _SECTION_READERS.get(key, dict)(value)
            _merge(found, key, {name: _paths(option) for name, option in values.items()})
        elif key in general:
            found[key] = plain(value)
        elif key in own:
            _merge(found, stage, {key: _paths(value)})
        elif key in SHORT_NAMES:
            section, dot, name = SHORT_NAMES[key].partition(".")
            _merge(found, section, {name: _paths(value)}) if dot else found.update({section: plain(value)})
        else:
            found[key] = value  # resolve names the nearest option
    return found


def _merge(found: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    known = found.setdefault(section, {})
    if twice := known.keys() & values.keys():
        raise UserError(f"option {section}.{min(twice)} is given twice.")
    known.update(plain(values))


def _read_tasks(tasks: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(task) if isinstance(task, Mapping) else {"source": fspath(task)} for name, task in tasks.items()}


def _read_pretexts(pretexts: Any) -> dict[str, Any]:
    if isinstance(pretexts, Mapping):
        return {name: _pretext_options(value) for name, value in pretexts.items()}
    items = pretexts if isinstance(pretexts, list | tuple) else [pretexts]
    return {_pretext_name(item): _pretext_options(item) for item in items}


def _pretext_name(item: Any) -> str:
    return item if isinstance(item, str) else item.registered_name


def _pretext_options(item: Any) -> dict[str, Any]:
    if is_dataclass(item) and not isinstance(item, type):
        return asdict(item)
    return dict(item) if isinstance(item, Mapping) else {}


def _paths(value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    return [_paths(item) for item in value] if isinstance(value, list | tuple) else value


_SECTION_READERS: dict[str, Callable[[Any], dict[str, Any]]] = {"tasks": _read_tasks, "pretexts": _read_pretexts}
