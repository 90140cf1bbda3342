"""Many runs of several arms, over seeds and shares of the labels, and what they say together."""

from vision_mtl.core.callable_package import make_callable

make_callable(__name__)
