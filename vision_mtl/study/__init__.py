"""Studies: many runs of several arms, over seeds and label fractions, compared in a report."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
