"""Pretrain any timm backbone by repairing damaged images, share it across tasks, and prove whether it helped."""

from typing import TYPE_CHECKING, Any

from vision_mtl.core import torchvision_ops

if TYPE_CHECKING:
    from vision_mtl.api.loaded_run import load_run

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]

torchvision_ops.install()


def __getattr__(name: str) -> Any:
    """`load_run`, imported when it is first used: PyTorch takes seconds, which `--help` must not wait for."""
    if name == "load_run":
        from vision_mtl.api.loaded_run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
