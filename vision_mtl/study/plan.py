"""The runs that a study needs: every arm's stages at every seed and label fraction, with equal runs merged.

A run's key is a hash of everything that its result depends on: its resolved options and the keys of the runs that it
starts from. So arms and fractions share one pretraining where their options agree, and a resumed study finds its
finished runs even if arms were added.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vision_mtl.core.errors import UserError
from vision_mtl.study.arms import Arm, merge
from vision_mtl.study.roles import Roles

REFERENCE = re.compile(r"\{([a-z_]+)\}")  # {STAGE} in an option: the folder of an earlier stage of the arm
Compose = Callable[[str, Mapping[str, Any]], tuple[dict[str, Any], str]]  # stage, options -> all options, key text


@dataclass
class Node:
    """One run. `start` is the key of the run whose weights it starts from; `refers` has those of runs it reads."""

    key: str
    stage: str
    seed: int
    options: dict[str, Any]  # as in a config file, references not yet filled in
    start: str | None
    refers: dict[str, str]  # stage -> key
    level: int  # runs of one level are independent of each other
    fraction: float | None
    arms: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """The run's folder, relative to the study's."""
        return f"runs/{self.stage}-s{self.seed}-{self.key}"

    @property
    def needs(self) -> list[str]:
        """The keys of the runs that must be finished first."""
        return [*([self.start] if self.start else []), *self.refers.values()]


@dataclass
class Plan:
    """The runs by key, each after those that it needs; `num_requested` counts them before merging."""

    compose: Compose
    tasks: Mapping[str, Mapping[str, Any]]
    fractions: Sequence[float]
    roles: Roles
    share: bool = True  # merge equal runs of different arms
    nodes: dict[str, Node] = field(default_factory=dict)
    num_requested: int = 0

    def add(self, arm: Arm, fraction: float, seed: int, chosen: Mapping[str, Any] | None = None) -> list[str]:
        """Plan an arm's runs; return the keys of those that it is scored by: one, or one per task."""
        before: dict[str, str] = {}
        for stage in arm.stages[:-1]:
            before[stage] = self._node(arm, stage, fraction, seed, chosen or {}, before)
        last = arm.stages[-1]
        if not arm.separate:
            return [self._node(arm, last, fraction, seed, chosen or {}, before)]
        own = arm.options.get(last, {}).get("tasks", self.tasks)
        return [
            self._node(arm, last, fraction, seed, chosen or {}, before, {"tasks": {task: options}})
            for task, options in own.items()
        ]

    def _node(
        self,
        arm: Arm,
        stage: str,
        fraction: float,
        seed: int,
        chosen: Mapping[str, Any],
        before: Mapping[str, str],
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        options = merge(arm.stage_options(stage, chosen), extra or {})
        options.setdefault("seed", seed + arm.seed_offset)
        at, role = None, self.roles[stage]
        if role.fraction_option:
            at, options = fraction, merge(options, {stage: {role.fraction_option: fraction}})
        elif role.fractions_option:
            fractions = {role.fractions_option: sorted(set(self.fractions))}
            options = merge(options, {stage: fractions | dict(role.fixed_options)})
        try:
            full, text = self.compose(stage, options)
        except UserError as error:
            raise UserError(f"study arm {arm.name}, stage {stage}: {error}") from error
        refers = {name: self._earlier(arm, name, before) for name in references(full)}
        starts = [key for name, key in before.items() if self.roles[name].gives_weights]
        start = starts[-1] if starts else None
        if start is not None:
            _check_backbones(arm, stage, full, self.nodes[start])
        salt = None if self.share else [arm.name, fraction]
        content = [stage, text, start, sorted(refers.items()), salt]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]
        self.num_requested += 1
        if key not in self.nodes:
            level = 1 + max((self.nodes[k].level for k in before.values()), default=-1)
            self.nodes[key] = Node(key, stage, int(full["seed"]), full, start, refers, level, at)
        if arm.name not in self.nodes[key].arms:
            self.nodes[key].arms.append(arm.name)
        return key

    @staticmethod
    def _earlier(arm: Arm, name: str, before: Mapping[str, str]) -> str:
        if name not in before:
            raise UserError(
                f"study.arms.{arm.name} refers to {{{name}}}, which is no earlier stage of it "
                f"({', '.join(before) or 'there is none'})."
            )
        return before[name]

    def levels(self) -> list[list[Node]]:
        """Return the runs by level; those of the first level need no other run."""
        count = 1 + max((node.level for node in self.nodes.values()), default=-1)
        return [[node for node in self.nodes.values() if node.level == level] for level in range(count)]


def _check_backbones(arm: Arm, stage: str, options: Mapping[str, Any], start: Node) -> None:
    """Raise `UserError` if a stage has another backbone than the stage whose weights it starts from."""
    own, theirs = ({**(found.get("backbone") or {}), "pretrained": None} for found in (options, start.options))
    for key in own.keys() & theirs.keys():
        if own[key] != theirs[key]:
            raise UserError(
                f"study arm {arm.name}: backbone.{key} is {own[key]!r} in stage {stage}, and {theirs[key]!r} in "
                f"{start.stage}, whose weights it starts from: give study.arms.{arm.name}.backbone, for all its stages."
            )


def references(options: Any) -> list[str]:
    """Return the stages that options refer to as {STAGE}, each once."""
    if isinstance(options, Mapping):
        found = [name for value in options.values() for name in references(value)]
    elif isinstance(options, list | tuple):
        found = [name for value in options for name in references(value)]
    else:
        found = REFERENCE.findall(options) if isinstance(options, str) else []
    return list(dict.fromkeys(found))


def fill(options: Any, folders: Mapping[str, str]) -> Any:
    """Return the options with every {STAGE} replaced by its folder."""
    if isinstance(options, Mapping):
        return {key: fill(value, folders) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return [fill(value, folders) for value in options]
    if isinstance(options, str):
        return REFERENCE.sub(lambda match: folders.get(match[1], match[0]), options)
    return options
