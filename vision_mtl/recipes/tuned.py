"""`--runtime.tune` in a run: its choice is made once, said, kept in the run, and remembered for the next one.

`<data.root>/tuned/` has a file for each network, batch and machine that was timed. One that cannot be read is said and
written anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from vision_mtl.config.resolve import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.recipes.choice import store_choice, stored_choice
from vision_mtl.training.loop import Trainer
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tuning import Choice, default_choice, machine, rebuilt, tune

FOLDER = "tuned"
TIMED = ("batch_size", "accumulate", "clip_norm", "ema_decay", "steps", "max_seconds")  # what a choice depends on


def tuned(config: RunConfig, run: Run, trainer: Trainer) -> Trainer:
    """The trainer under the settings that `runtime.tune` finds; the trainer itself if nothing was asked for.

    A choice that the run has made, or was given in `runtime.tuned`, is taken as it is. Raises `UserError` if it names
    what there is not, and with several processes, which one process's times say nothing about.
    """
    runtime = Runtime(**config.runtime)
    given = runtime.tuned or (stored_choice(run.folder) if runtime.tune != "none" else {})
    if runtime.tune == "none" and not given:
        return trainer
    if trainer.accelerator.num_processes > 1:
        raise UserError(
            f"runtime.tune times one process, and this run has {trainer.accelerator.num_processes}. Leave it out; "
            "runtime.channels_last, runtime.compile and runtime.precision can be given."
        )
    device = trainer.accelerator.device.type
    choice = Choice.of(given) if given else _found(config, run, trainer, runtime)
    run.runtime = choice.to_json()
    if run.is_main and not given:
        store_choice(config, run.folder, run.runtime)
    return rebuilt(trainer, choice, runtime, device)


def _found(config: RunConfig, run: Run, trainer: Trainer, runtime: Runtime) -> Choice:
    """The remembered choice for this network and machine, or the one that timing gives."""
    device = trainer.accelerator.device.type
    about = {"machine": machine(device), "asked": _asked(config, trainer)}
    path = _place(config, about)
    before = _remembered(path, about, run)
    if before is not None:
        run.say(f"runtime.tune: as timed before ({path}): {_words(before, trainer, runtime)}")
        return before
    run.say("runtime.tune: timing a few steps")
    choice, seconds = tune(trainer, runtime)
    run.say(f"runtime.tune: {_words(choice, trainer, runtime)}")
    step = None if math.isnan(seconds) else seconds
    try:
        atomic_write_json(path, {**about, "choice": choice.to_json(), "step_seconds": step})
    except (UserError, OSError) as error:
        run.say(f"runtime.tune: the choice could not be remembered for other runs: {error}")
    return choice


def _words(choice: Choice, trainer: Trainer, runtime: Runtime) -> str:
    default = default_choice(runtime, trainer.model.backbone, trainer.accelerator.device.type)
    return choice.differs(default) or "the defaults are the fastest"


def _asked(config: RunConfig, trainer: Trainer) -> dict[str, Any]:
    """All that the time of a step depends on beside the machine."""
    optim = {key: config.optim.get(key) for key in TIMED}
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    sections = {name: getattr(config, name) for name in ("backbone", "decoder", "pretexts", "balance", "own")}
    runtime = {key: value for key, value in config.runtime.items() if key != "tuned"}
    asked = {"stage": config.stage, "image_size": config.image_size, "optim": optim, "runtime": runtime, **sections}
    return json.loads(json.dumps({**asked, "tasks": sorted(config.tasks), "trainable": trainable}, default=str))


def _place(config: RunConfig, about: dict[str, Any]) -> Path:
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
    return Path(config.data["root"]).expanduser() / FOLDER / f"{key}.json"


def _remembered(path: Path, about: dict[str, Any], run: Run) -> Choice | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        if {key: found[key] for key in about} != about:
            raise ValueError("it is of another network or machine")
        return Choice.of(found["choice"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        run.warn(f"runtime.tune: {path} is passed over and written anew: {error}")
        return None
