"""A trained model as files that need no vision_mtl."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
