"""Sources of images, the decoded store, splits and batches. The only room where an image is uint8 HWC."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
