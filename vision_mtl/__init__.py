"""Pretrain any timm backbone by repairing damaged images, share it across tasks, and prove whether it helped."""

from vision_mtl.core import torchvision_ops

__version__ = "0.1.0"

torchvision_ops.install()
