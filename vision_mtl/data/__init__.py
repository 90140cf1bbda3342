"""Sources of images, the decoded store, splits and batches. Only in this package are images integers (H, W, C)."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
