"""The stages by name. A stage is a function (config, run) -> None; its keyword-only parameters are options of its own.

Its file's constant `SECTIONS` names the sections of the config that it reads.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from vision_mtl.core.registry import Registry

STAGES: Registry[Callable[..., None]] = Registry("stage", "vision_mtl.stages")


def sections(stage: str) -> tuple[str, ...]:
    """The sections that a stage reads, from its file's text; raises `UserError` for an unknown stage."""
    for node in ast.parse(STAGES.file(stage).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SECTIONS":
            return ast.literal_eval(node.value)
    raise ValueError(f"the file of stage {stage} has no SECTIONS")
