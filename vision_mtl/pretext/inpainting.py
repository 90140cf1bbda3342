"""OpenCV's inpainting: the classic repair of hidden pixels and the reference of every masking pretext."""
# B images, C channels, H W pixels

import cv2
import numpy as np
import torch
from torch import Tensor

from vision_mtl.pretext.hiding import blank

RADIUS = 5  # pixels; the strongest of 1, 3, 5 for Telea and Navier-Stokes on one hidden cell of 4 x 4 (see smooth.py)


def inpaint(images: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1], mask (B, 1, H, W) True = hidden -> the images with hidden pixels inpainted.

    Telea, "An image inpainting technique based on the fast marching method", 2004, in 8 bits; RGB at once, other
    images channel by channel. An image without a visible pixel becomes 0.5.
    """
    visible = blank(images, mask).clamp(0, 1)
    pixels = (visible * 255).round().byte().cpu().numpy()  # (B, C, H, W)
    hidden = mask[:, 0].byte().cpu().numpy()
    repaired = np.stack([_inpaint_one(image, hole) for image, hole in zip(pixels, hidden, strict=True)])
    result = torch.from_numpy(repaired).to(images.device, images.dtype) / 255.0
    return torch.where(mask, result, images)


def _inpaint_one(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(C, H, W) uint8 and (H, W) uint8 -> (C, H, W) uint8."""
    if hole.all():
        return np.full_like(image, 128)
    if len(image) == 3:
        return _telea(image.transpose(1, 2, 0), hole).transpose(2, 0, 1)
    return np.stack([_telea(channel, hole) for channel in image])


def _telea(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    return cv2.inpaint(np.ascontiguousarray(image), hole, RADIUS, cv2.INPAINT_TELEA)
