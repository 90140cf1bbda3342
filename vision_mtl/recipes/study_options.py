"""The options of a study's runs: the study's, then those of a stage in every arm, then the arm's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from vision_mtl.config.resolve import resolve, with_added_to_pretexts
from vision_mtl.config.run_config import REPAIRS, RunConfig
from vision_mtl.config.schema import ADDED, ADDED_TO_TASKS, CHANGED, RETIRED
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.models.weights import file_sha256, given_file
from vision_mtl.study.arms import flat, merge
from vision_mtl.study.plan import Compose, references
from vision_mtl.study.roles import ArmRole


def composer(
    config: RunConfig, options: Mapping[str, Any], earlier_pretexts: bool = False, earlier_pretraining: bool = False
) -> Compose:
    """Return the function that completes an arm's options of a stage, and gives the text that identifies the run.

    `options` are those of each stage in every arm, the others are options of the study. The function raises `UserError`
    for a budget in seconds.
    """
    sections = {name: config.section(name) for name in config.options.sections}
    general = {"device": config.device, "image_size": list(config.image_size)}
    texts: dict[str, str] = {}

    def compose(stage: str, own: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        kind = STAGES.get(stage)
        full: dict[str, Any] = general | {name: value for name, value in sections.items() if name in kind.sections}
        if not kind.uses_unlabelled:
            full["data"] = {k: v for k, v in sections["data"].items() if k != "unlabelled"}
        role = kind.arm or ArmRole()
        before = _earlier_pretraining() if earlier_pretraining and stage == "pretrain" else {}
        for above in (before, role.options, options.get(stage) or {}, own):
            name = (above.get("decoder") or {}).get("name")
            if name not in (None, full.get("decoder", {}).get("name")):
                full["decoder"] = {}  # another decoder has other options
            full = merge(full, above)
        seconds = merge(options.get(stage) or {}, own).get("optim", {}).get("max_seconds")
        if seconds is not None:
            raise UserError(
                "a study's budgets are optim.steps, because seconds depend on the load of the machine; found "
                f"optim.max_seconds {seconds}."
            )
        if before and not any("pretexts" in above for above in (options.get(stage) or {}, own)):
            full["pretexts"] = {name: {} for name in REPAIRS}
        if earlier_pretexts:
            full = _with_earlier_pretexts(stage, full)
        without_seed = json.dumps({**full, "seed": 0}, sort_keys=True)
        if without_seed not in texts:  # resolving is slow, and only the seed differs between many runs
            resolved = resolve(stage, _without_references({**full, "seed": 0}), {})
            texts[without_seed] = _key_text(resolved) + _weights_key(resolved)
        referring = {key: value for key, value in flat(full).items() if references(value)}
        return full, f"{texts[without_seed]}seed {full['seed']} {json.dumps(referring, sort_keys=True)}"

    return compose


def _key_text(config: RunConfig) -> str:
    """Return the text that identifies a run. Its form is fixed: older studies find their finished runs by it."""
    found = config.to_dict()
    for task in found.get("tasks", {}).values():
        task["source"] = task.pop("source")  # the last key
        for name, before in ADDED_TO_TASKS.items():
            if task.get(name) == before:
                task.pop(name, None)
    for key, (nothing, _) in RETIRED.items():
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = nothing
    for key, before in ADDED.items():
        *path, name = key.split(".")
        inner = found
        for part in path:
            inner = inner.get(part, {})
        if inner.get(name) == before:
            inner.pop(name, None)
    if not found.get("score", True):  # runs from before this section lack it
        del found["score"]
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def _weights_key(config: RunConfig) -> str:
    """Return what identifies the file of `backbone.pretrained`: a run with another file's weights is another run."""
    pretrained = config.backbone.pretrained
    return f"weights {file_sha256(given_file(pretrained))}\n" if isinstance(pretrained, str) else ""


def _earlier_pretraining() -> dict[str, Any]:
    """Return the options of pretraining whose defaults changed, as studies begun before have them."""
    names = (key.partition("optim.")[2] for key in CHANGED)
    return {"optim": {name: CHANGED[f"optim.{name}"][0] for name in names if name}}


def _with_earlier_pretexts(stage: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the pretexts as a study began that is older than some of their options."""
    names = resolve(stage, _without_references(options), {}).to_dict().get("pretexts") or {}
    given = options.get("pretexts") or {}
    return options | {"pretexts": with_added_to_pretexts({n: given.get(n) or {} for n in names})} if names else options


def _without_references(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those that refer to the folder of a run, which may not exist yet."""
    return {
        key: _without_references(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
        if isinstance(value, Mapping) or not references(value)
    }
