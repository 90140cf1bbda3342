"""Imported by pytest before any test file, so that the package comes before timm and torchvision."""

import vision_mtl  # noqa: F401
