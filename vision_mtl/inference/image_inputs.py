"""Read images given in Python (paths, pictures, arrays, tensors) as tensors of the model's size."""
# B images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import UnreadableImage, pixels_of
from vision_mtl.data.depth import stacked
from vision_mtl.data.pool import image_tensor
from vision_mtl.inference.image_files import Frame, find_inputs, unreadable_text

ImageInput = str | PathLike[str] | Image.Image | np.ndarray | Tensor | Sequence[Any]
ACCEPTED = (
    "a path (file, folder or glob), a PIL image, an array of integers or floats (H, W), (H, W, C) or (B, H, W, C), "
    "a float tensor (B, C, H, W) in [0, 1], or a list of these"
)


def read_image_input(images: ImageInput, frame: Frame) -> tuple[list[str], Tensor]:
    """Return a name for each image, and the images as float32 (B, C, H, W) in [0, 1].

    `images` is one of `ACCEPTED`. Files, pictures and arrays are resized as the training images were; a float tensor
    must have the model's size. A uint8 array is full scale at 255, other arrays are scaled by the range of the frame. A
    name is the path, or `image 0` and so on. Raises `UserError` for another type, shape or range, for a missing or
    unreadable file, and for no image at all.
    """
    names: list[str | None] = []
    parts: list[Tensor] = []
    for item in images if isinstance(images, list | tuple) else [images]:
        item_names, pixels = _read(item, frame)
        names += item_names
        parts.append(pixels)
    if not names:
        raise UserError(f"no image was given: give {ACCEPTED}.")
    return [name or f"image {number}" for number, name in enumerate(names)], torch.cat(parts)


def _read(item: Any, frame: Frame) -> tuple[list[str | None], Tensor]:
    if isinstance(item, str | PathLike):
        return _read_files(fspath(item), frame)
    if isinstance(item, Tensor):
        tensor = _checked(item, frame)
        return [None] * len(tensor), tensor
    if isinstance(item, Image.Image):
        return [getattr(item, "filename", "") or None], _fitted([pixels_of(item.copy())], frame)
    if isinstance(item, np.ndarray) and item.dtype.kind in "iuf" and item.ndim in (2, 3, 4) and item.size:
        batch = item[None] if item.ndim < 4 else item
        pixels = [_without_alpha(image[..., None] if image.ndim == 2 else image, frame) for image in batch]
        return [None] * len(pixels), _fitted(pixels, frame)
    found = f"{item.dtype} array of shape {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
    raise UserError(f"images must be {ACCEPTED}; found {found}.")


def _read_files(path: str, frame: Frame) -> tuple[list[str | None], Tensor]:
    files = find_inputs([path])
    found = [frame.read(file) for file in files]
    if broken := [image for image in found if isinstance(image, UnreadableImage)]:
        raise UserError(f"{len(broken)} of {len(files)} images cannot be read:\n{unreadable_text(broken)}")
    pixels = [image.pixels for image in found if not isinstance(image, UnreadableImage)]
    return [file.name for file in files], image_tensor(stacked(pixels))


def _fitted(pixels: Sequence[np.ndarray], frame: Frame) -> Tensor:
    return image_tensor(stacked([frame.fit_pixels(image).pixels for image in pixels]))


def _without_alpha(image: np.ndarray, frame: Frame) -> np.ndarray:
    """Return grey or RGB without an alpha channel, which decoded files lack too; bands of the model are kept."""
    return image[..., :-1] if image.shape[2] in (2, 4) and image.shape[2] != frame.channels else image


def _checked(images: Tensor, frame: Frame) -> Tensor:
    """Return the tensor as float32 on the CPU; raises `UserError` for another type, size or range than the model's."""
    wanted = (frame.channels, *frame.size)
    if not images.is_floating_point() or images.ndim != 4 or tuple(images.shape[1:]) != wanted or not len(images):
        raise UserError(
            f"a tensor of images must be float and of shape (B, {', '.join(map(str, wanted))}), the model's; found "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}. Arrays of any size are resized."
        )
    images = images.detach().cpu().float()
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise UserError(f"a tensor of images must lie in [0, 1], without NaN; found {low:g} to {high:g}.")
    return images
