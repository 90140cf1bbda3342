"""The options of a study's runs: those that it gives to all, what a stage has in every arm, and each arm's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.schema import RETIRED
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.study.plan import Compose, references
from vision_mtl.study.recipes import flat, merge


def composer(config: RunConfig, options: Mapping[str, Any]) -> Compose:
    """What completes a stage's options: those of the study, what a stage has in every arm, and the arm's own."""
    common = {name: config.section(name) for name in config.options.sections}
    general = {"device": config.device, "image_size": list(config.image_size)}
    texts: dict[str, str] = {}

    def compose(stage: str, own: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        kind = STAGES.get(stage)
        full = general | {name: value for name, value in common.items() if name in kind.sections}
        if not kind.uses_unlabelled:
            full["data"] = {k: v for k, v in full["data"].items() if k != "unlabelled"}
        for above in (kind.arm.options, options.get(stage) or {}, own):
            full = merge(full, above)
        seconds = merge(options.get(stage) or {}, own).get("optim", {}).get("max_seconds")
        if seconds is not None:
            raise UserError(
                "a study's budgets are optim.steps, for seconds depend on what runs beside; found "
                f"optim.max_seconds {seconds}."
            )
        without_seed = json.dumps({**full, "seed": 0}, sort_keys=True)
        if without_seed not in texts:  # resolving takes a while, and seeds are many
            texts[without_seed] = _key_text(resolve(stage, _without_references({**full, "seed": 0}), {}))
        referring = {key: value for key, value in flat(full).items() if references(value)}
        return full, f"{texts[without_seed]}seed {full['seed']} {json.dumps(referring, sort_keys=True)}"

    return compose


def _key_text(config: RunConfig) -> str:
    """The text that tells runs apart, in the form that the first studies had: they recognise their finished runs."""
    found = config.to_dict()
    for task in found.get("tasks", {}).values():
        task["source"] = task.pop("source")  # last
    for key, (nothing, _) in RETIRED.items():
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = nothing
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def _without_references(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options but those that refer to the folder of a run that is not there yet."""
    return {
        key: _without_references(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if isinstance(value, Mapping) or not references(value)
    }
