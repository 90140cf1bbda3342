"""Does every timm architecture pretrain? One step with three pretexts that repair, and two that predict features.

One model of each module takes the step, with all five pretexts in the batch.

    python benchmarks/architectures.py [MODULE ...]

For each: the step's loss is finite, and the first trainable layer gets a gradient that is not zero. Sizes are 64
pixels, or the nearest that the architecture allows. The last line counts; the exit code is 0 only if all passed. Writes
`benchmarks/results/architectures.json`. About 10 minutes on 2 cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip
import numpy as np
import timm
import torch
from timm.models._registry import _module_to_models as MODULES

from benchmarks.record import write
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.models.backbone import Backbone, allowed_size
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.pretext.distil import Distil
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.objective import step_loss
from vision_mtl.training.repair import PretextObjective, head_specs, measure_chance_losses

HERE = Path(__file__).parent
PRETEXT_NAMES = ("grid_mask", "decolorise", "downsample", "distil", "distil_map")
BATCH = 10  # two images of each pretext
HIDDEN = {"grid_mask": {"hidden": "ratio"}}  # the damage of features


def main(modules: list[str]) -> int:
    table = read_table()
    rows = []
    for module in modules or sorted(MODULES):
        row = check(module, table.get(module, ""))
        rows.append(row)
        print(f"{len(rows):3d}  {module:28s} {row['model']:36s} {row['size']:>9s}  {row['result']}", flush=True)
    return report(rows, "architectures", whole=not modules)


def report(rows: list[dict[str, object]], name: str, whole: bool) -> int:
    """Say how many passed, and of the `whole` table write `results/NAME.json`; the exit code, 0 where all did."""
    passed = sum(row["result"] == "passed" for row in rows)
    if whole:
        meta = {"timm": timm.__version__, "torch": torch.__version__, "vision_mtl": vision_mtl.__version__}
        write(name, {**meta, "passed": passed, "of": len(rows), "rows": rows})
    print(f"{passed} of {len(rows)}")
    return 0 if passed == len(rows) else 1


def read_table() -> dict[str, str]:
    """Module -> model, from `architectures.txt`."""
    lines = (HERE / "architectures.txt").read_text().splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))


def check(module: str, name: str) -> dict[str, object]:
    """One row: what happened to the module's model. Nothing is caught but what a user would be told."""
    start = time.perf_counter()
    row: dict[str, object] = {"module": module, "model": name or "?", "size": "-"}
    if not name:
        return {**row, "result": "no model of this module in architectures.txt"}
    try:
        backbone = build(name)
        row["size"] = ",".join(map(str, backbone.image_size))
        row["result"] = one_step(backbone)
    except Exception as error:
        row["result"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return {**row, "seconds": round(time.perf_counter() - start, 2)}


def build(name: str) -> Backbone:
    """The backbone at 64 pixels, or at the nearest size that it allows."""
    torch.manual_seed(0)
    try:
        return Backbone(name, image_size=(64, 64))
    except UserError:
        size = allowed_size(name, (64, 64))
        if size is None:
            raise
        return Backbone(name, image_size=size)


def one_step(backbone: Backbone) -> str:
    """ "passed", or what was wrong."""
    pretexts = build_pretexts()
    decoder = DECODERS.get("stages")().build(MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size))
    model = SharedModel(backbone, decoder, head_specs(pretexts, 3)).train()
    images = torch.rand(BATCH, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(pretexts)
    keys = all_pretexts_drawn(mixture)
    objective = PretextObjective(mixture, measure_chance_losses(mixture, images, keys))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss = step_loss(model, objective, (images, keys))
    loss.total.backward()
    # a layer, not a class token: of those some never meet the maps
    weights = (getattr(module, "weight", None) for module in backbone.model.modules())
    first = next(w for w in weights if isinstance(w, torch.nn.Parameter) and w.requires_grad and w.ndim > 1)
    if set(loss.shown) != set(PRETEXT_NAMES) or not bool(loss.total.isfinite()):
        return f"loss {loss.total.item()} of {sorted(loss.shown)}"
    if first.grad is None or not bool(first.grad.isfinite().all()) or not bool(first.grad.any()):
        return "no gradient in the first trainable layer"
    optimiser.step()
    return "passed"


def build_pretexts() -> dict[str, Pretext]:
    """The pretexts by name; features, pooled and of a map, have random numbers as targets."""
    found: dict[str, Pretext] = {name: PRETEXTS.get(name)() for name in PRETEXT_NAMES[:3]}
    random = np.random.default_rng(0)
    for name, kind, grid in (("distil", "pooled", ()), ("distil_map", "map", (4, 4))):
        pretext = Distil(features=kind, width=32, damage=HIDDEN)
        found[name] = pretext.bound(random.normal(size=(BATCH, 2, 32, *grid)).astype(np.float16))
    return found


def all_pretexts_drawn(mixture: Mixture) -> Keys:
    """Keys under which the batch holds every pretext."""
    for seed in range(1000):
        keys = Keys(seed, 0, torch.arange(BATCH))
        if len(mixture.assign(keys).unique()) == len(PRETEXT_NAMES):
            return keys
    raise AssertionError("no seed below 1000 draws every pretext")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
