"""Export a trained model to files that are used without vision_mtl."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
