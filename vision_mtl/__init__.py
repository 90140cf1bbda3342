"""Pretrain any timm backbone by repairing damaged images, share it across tasks, and prove whether it helped.

The public Python API, imported when it is first used:

- a function for each stage, with the command line's options as keywords (`vm.pretrain`, `vm.finetune`, ...), and
  `vm.run_stage` for any by its name; `vm.load_run` opens a finished run;
- parts for a program of one's own: `vm.open_images`, `vm.build_model`, `vm.repair_loss`, `vm.Trainer`, and a class for
  each pretext (`vm.GridMask`, `vm.Decolorise`, ...);
- `vm.UserError`, raised for what the caller can change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vision_mtl.core import torchvision_ops

if TYPE_CHECKING:
    from vision_mtl.api.loaded_run import LoadedRun, load_run
    from vision_mtl.api.parts import Trainer, build_model, open_images, repair_loss
    from vision_mtl.api.stage_functions import run_stage
    from vision_mtl.core.errors import UserError
    from vision_mtl.pretext.blur import Blur
    from vision_mtl.pretext.chain import Chain
    from vision_mtl.pretext.contrast import Contrast
    from vision_mtl.pretext.decolorise import Decolorise
    from vision_mtl.pretext.distil import Distil
    from vision_mtl.pretext.downsample import Downsample
    from vision_mtl.pretext.grid_mask import GridMask
    from vision_mtl.pretext.neighbour import Neighbour
    from vision_mtl.pretext.rotation import Rotation

__version__ = "0.1.0"

_PLACES = {
    "LoadedRun": "vision_mtl.api.loaded_run",
    "load_run": "vision_mtl.api.loaded_run",
    "run_stage": "vision_mtl.api.stage_functions",
    "Trainer": "vision_mtl.api.parts",
    "build_model": "vision_mtl.api.parts",
    "open_images": "vision_mtl.api.parts",
    "repair_loss": "vision_mtl.api.parts",
    "UserError": "vision_mtl.core.errors",
    "Blur": "vision_mtl.pretext.blur",
    "Chain": "vision_mtl.pretext.chain",
    "Contrast": "vision_mtl.pretext.contrast",
    "Decolorise": "vision_mtl.pretext.decolorise",
    "Distil": "vision_mtl.pretext.distil",
    "Downsample": "vision_mtl.pretext.downsample",
    "GridMask": "vision_mtl.pretext.grid_mask",
    "Neighbour": "vision_mtl.pretext.neighbour",
    "Rotation": "vision_mtl.pretext.rotation",
}
_PACKAGES = ("data", "export", "study")  # stages that share their name with a package, which is callable

__all__ = [
    "Blur",
    "Chain",
    "Contrast",
    "Decolorise",
    "Distil",
    "Downsample",
    "GridMask",
    "LoadedRun",
    "Neighbour",
    "Rotation",
    "Trainer",
    "UserError",
    "__version__",
    "build_model",
    "load_run",
    "open_images",
    "repair_loss",
    "run_stage",
]

torchvision_ops.install()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: PyTorch takes seconds, which `--help` must not wait for."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if not name.startswith("_") and name in _stages():
        from vision_mtl.api.stage_functions import stage_function

        return stage_function(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *_stages()})


def _stages() -> list[str]:
    from vision_mtl.core.registry import Registry

    stages: Registry[Any] = Registry("stage", "vision_mtl.stages")
    return stages.names()
