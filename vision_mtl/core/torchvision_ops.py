"""Make `import torchvision` work with a PyTorch build that does not match its compiled operators.

The torchvision wheel on the package registry is built for CUDA. With a CPU-only PyTorch its `_C.so` does not load, and
the import fails with `operator torchvision::nms does not exist`, because torchvision attaches fake kernels to
operators that were never declared. timm imports torchvision, so timm fails too. Declaring the two schemas is enough:
nothing in this project calls them.

`vision_mtl/__init__.py` calls `install()`, which costs nothing until torchvision is imported: a finder on
`sys.meta_path` waits for that name, acts once and removes itself.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip

_kept_alive: list[object] = []  # a torch.library.Library un-declares its operators when it is collected


class _TorchvisionWatch:
    """A `sys.meta_path` finder that finds no module: it only notices the import of torchvision."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec("torchvision")
            if spec is not None and spec.origin is not None and not operators_load(Path(spec.origin).parent):
                declare_operators()
        return None  # the ordinary finders import it


def install() -> None:
    """Watch for the first import of torchvision, unless it is imported or watched already."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _TorchvisionWatch) for f in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionWatch())


def operators_load(package: Path) -> bool:
    """Return True if the compiled operators of torchvision, in the folder `package`, load into this PyTorch."""
    import torch

    for library in (*package.glob("_C*.so"), *package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(library)
        except (OSError, ImportError):
            continue
        return True
    return False


def declare_operators() -> None:
    """Declare the schemas that the import of torchvision needs; calling the operators still fails."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _kept_alive.append(library)
