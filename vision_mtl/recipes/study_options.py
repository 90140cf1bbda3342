"""The options of a study's runs: those that it gives to all, what a stage has in every arm, and each arm's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vision_mtl.config.resolve import LABELLED_ONLY, RunConfig, resolve
from vision_mtl.config.stage import sections
from vision_mtl.core.errors import UserError
from vision_mtl.study.plan import Compose, references
from vision_mtl.study.recipes import flat, merge

DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {  # of every arm; budgets are steps, as seconds depend on the other runs
    "discover": {"optim": {"steps": 300}},
    "pretrain": {"optim": {"steps": 300}},
    "finetune": {"optim": {"steps": 150}, "finetune": {"keep_best_per_task": False}},
    "joint": {"optim": {"steps": 150}, "joint": {"keep_best_per_task": False}},
    "probe": {"probe": {"embedding_images": 0}},
}


def composer(config: RunConfig, options: Mapping[str, Any]) -> Compose:
    """What completes a stage's options: those of the study, what a stage has in every arm, and the arm's own."""
    common = {name: getattr(config, name) for name in sections(config.stage)}
    general = {"device": config.device, "image_size": list(config.image_size)}
    texts: dict[str, str] = {}

    def compose(stage: str, own: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        full = general | {name: value for name, value in common.items() if name in sections(stage)}
        if stage in LABELLED_ONLY:
            full["data"] = {k: v for k, v in full["data"].items() if k != "unlabelled"}
        for above in (DEFAULT_OPTIONS[stage], options.get(stage) or {}, own):
            full = merge(full, above)
        seconds = merge(options.get(stage) or {}, own).get("optim", {}).get("max_seconds")
        if seconds is not None:
            raise UserError(
                "a study's budgets are optim.steps, for seconds depend on what runs beside; found "
                f"optim.max_seconds {seconds}."
            )
        without_seed = json.dumps({**full, "seed": 0}, sort_keys=True)
        if without_seed not in texts:  # resolving takes a while, and seeds are many
            texts[without_seed] = resolve(stage, _without_references({**full, "seed": 0}), {}).to_yaml()
        referring = {key: value for key, value in flat(full).items() if references(value)}
        return full, f"{texts[without_seed]}seed {full['seed']} {json.dumps(referring, sort_keys=True)}"

    return compose


def _without_references(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options but those that refer to the folder of a run that is not there yet."""
    return {
        key: _without_references(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if isinstance(value, Mapping) or not references(value)
    }
