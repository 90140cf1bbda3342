"""The network that a finished run started from, rebuilt from the run's config."""

from __future__ import annotations

from vision_mtl.config.resolve import resolve
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build
from vision_mtl.recipes.initial_weights import check_unchanged, recorded_weights
from vision_mtl.recipes.repair import build_network
from vision_mtl.recipes.run_warnings import run_folder

STAGES = ("pretrain", "discover")  # whose networks have heads for pretexts alone


def start_network(where: str | None, run: Run) -> SharedModel | None:
    """Return the network that the pretraining `where` started from: its seed's, or its start's weights.

    `where` is a run, its folder of checkpoints or one of these. None, and a warning to `run`, if the run has no config
    or the weights that it names are gone.
    """
    try:
        folder = run_folder(where or "")
        values = read_config(folder / "config.yaml")
        stage = values.get("stage")
        if stage in STAGES:
            config = resolve(stage, values, {}, folder=folder)
            network = build_network(config, build.build_pretexts(config))
            check_unchanged(network.backbone, recorded_weights(folder / "checkpoints") or {})
            return network
        why = f"its stage is {stage}"
    except UserError as error:
        why = str(error)
    run.warn(f"the network that {where} started from is not among the rules of skill_learned: {why}")
    return None
