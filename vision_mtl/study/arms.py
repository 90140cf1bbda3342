"""Arms of a study: read from its options, and checked before anything runs.

An arm is a list of stages with options; each stage starts from the one before:

    arms:
      labelled_only: [finetune]
      pretrained:
        stages: [pretrain, finetune]
        pretrain: {optim: {steps: 300}}
      sabotaged:
        extends: pretrained
        pretrain: {pretexts: {rotation: }}
      imagenet:
        stages: [finetune]
        backbone: {name: tf_efficientnet_lite0, pretrained: true}
        not_independent: [objects]
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.study.roles import Roles

OWN = ("stages", "extends", "note", "separate", "seed_offset", "grid", "backbone", "not_independent")
WHOLE = ("tasks", "pretexts")  # sections that a later mapping replaces as a whole, as in a config file
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm. `options` are, by stage, those that differ from the options of all arms; `backbone` is in each stage's.

    `not_independent` are tasks whose images or labels may be known to what the arm starts from.
    """

    name: str
    stages: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    note: str = ""  # one sentence for the report
    separate: bool = False  # run the last stage once per task, with that task alone
    seed_offset: int = 0  # added to every seed: the same arm with other seeds is a control
    not_independent: tuple[str, ...] = ()
    grid: dict[str, list[Any]] = field(default_factory=dict)  # STAGE.option -> values to choose from on validation

    def candidates(self) -> list[dict[str, Any]]:
        """Return every combination of the grid; one empty combination without a grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def stage_options(self, stage: str, chosen: Options) -> dict[str, Any]:
        """Return the arm's options of a stage, with a candidate of its grid filled in."""
        options = self.options.get(stage, {})
        for key, value in chosen.items():
            where, _, dotted = key.partition(".")
            if where == stage:
                options = merge(options, nest(dotted, value))
        return options


def read_arms(arms: Mapping[str, Any], roles: Roles) -> dict[str, Arm]:
    """Return the arms by name, in order; `roles` are the stages that an arm may have.

    Raises `UserError` naming the arm, the rule and the value.
    """
    if not arms:
        raise UserError("study.arms must name at least one arm.")
    found = {str(name): _arm(str(name), _full(str(name), arms, ()), roles) for name in arms}
    _check_grids(found)
    return found


def merge(below: Options, above: Options) -> dict[str, Any]:
    """Return `below` updated by `above`, mapping by mapping; `tasks` and `pretexts` are replaced as a whole."""
    merged = dict(below)
    for key, value in above.items():
        inner = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key not in WHOLE
        merged[key] = merge(merged[key], value) if inner else value
    return merged


def nest(dotted: str, value: Any) -> dict[str, Any]:
    """Return a dotted option as nested mappings: `a.b`, 1 -> {"a": {"b": 1}}."""
    first, dot, rest = dotted.partition(".")
    return {first: nest(rest, value) if dot else value}


def flat(options: Options, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as dotted options: {"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        found |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found


def _full(name: str, arms: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    """Return the arm's mapping, merged over that of the arm it extends."""
    given = arms[name]
    if isinstance(given, list):
        given = {"stages": given}
    if not isinstance(given, Mapping):
        raise UserError(f"study.arms.{name} must be a list of stages or a mapping; found {given!r}.")
    base = given.get("extends")
    if base is None:
        return dict(given)
    if base not in arms:
        raise unknown(f"arm that study.arms.{name} extends", str(base), [str(other) for other in arms])
    if base in (*above, name):
        raise UserError(f"study.arms.{name} extends itself, by way of {', '.join((*above, name))}.")
    return merge(_full(base, arms, (*above, name)), {k: v for k, v in given.items() if k != "extends"})


def _arm(name: str, given: dict[str, Any], roles: Roles) -> Arm:
    judged = [stage for stage, role in roles.items() if role.judged]
    last_only = {stage for stage, role in roles.items() if role.judged and not role.gives_weights}
    for key in given:
        if key not in (*OWN, *roles):
            raise unknown(f"key of study.arms.{name}", str(key), [*OWN, *roles])
    stages = given.get("stages")
    if not isinstance(stages, list) or not stages:
        raise UserError(f"study.arms.{name}.stages must list stages; found {stages!r}.")
    for stage in stages:
        if stage not in roles:
            raise unknown(f"stage of study.arms.{name}", str(stage), roles)
    if len(set(stages)) != len(stages) or stages[-1] not in judged or set(stages[:-1]) & last_only:
        raise UserError(
            f"study.arms.{name}.stages must name each stage once and end in {', '.join(judged[:-1])} or {judged[-1]}; "
            f"found {', '.join(stages)}."
        )
    options = {stage: _mapping(name, stage, given[stage]) for stage in roles if given.get(stage) is not None}
    for stage in options:
        if stage not in stages:
            raise UserError(f"study.arms.{name} has options of stage {stage}, which it does not run.")
    if given.get("backbone") is not None:
        common = {"backbone": _mapping(name, "backbone", given["backbone"])}
        options |= {stage: merge(common, options.get(stage, {})) for stage in stages}
    return Arm(
        name=name,
        stages=tuple(stages),
        options=options,
        note=str(given.get("note", "")),
        separate=_of_type(name, "separate", given.get("separate", False), bool),
        seed_offset=_of_type(name, "seed_offset", given.get("seed_offset", 0), int),
        grid=_grid(name, given.get("grid") or {}, stages),
        not_independent=_task_names(name, given.get("not_independent") or []),
    )


def _mapping(name: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"study.arms.{name}.{key} must be a mapping of options; found {value!r}.")
    return dict(value)


def _of_type(name: str, key: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        wanted = "true or false" if kind is bool else "a whole number"
        raise UserError(f"study.arms.{name}.{key} must be {wanted}; found {value!r}.")
    return value


def _task_names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(task, str) for task in value):
        raise UserError(f"study.arms.{name}.not_independent must list tasks; found {value!r}.")
    return tuple(value)


def _grid(name: str, grid: Any, stages: Sequence[str]) -> dict[str, list[Any]]:
    found = _mapping(name, "grid", grid)
    for key, values in found.items():
        stage, dot, _ = str(key).partition(".")
        if not dot or stage not in stages:
            raise UserError(
                f"study.arms.{name}.grid: {key!r} must be STAGE.option with a stage of the arm ({', '.join(stages)})."
            )
        if not isinstance(values, list) or not values:
            raise UserError(f"study.arms.{name}.grid.{key} must list values; found {values!r}.")
    return found


def _check_grids(arms: Mapping[str, Arm]) -> None:
    """Raise `UserError` unless all grids have the same size: a larger one is a larger tuning budget."""
    sizes = {name: len(arm.candidates()) for name, arm in arms.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"every arm's grid must have the same size, so that none is tuned harder; found {shown}.")
