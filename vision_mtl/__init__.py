"""Pretrain any timm backbone by repairing damaged images, share it across tasks, and prove whether it helped."""

from vision_mtl.core import threads, torchvision_ops

__version__ = "0.1.0"

threads.install()
torchvision_ops.install()
