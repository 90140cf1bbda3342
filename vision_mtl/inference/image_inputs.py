"""Images as a person has them in Python (paths, pictures, arrays, tensors), brought to what a model takes."""
# B images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import UnreadableImage, pixels_of
from vision_mtl.data.pool import image_tensor
from vision_mtl.inference.image_files import Frame, find_inputs, unreadable_text

ImageInput = str | PathLike[str] | Image.Image | np.ndarray | Tensor | Sequence[Any]
ACCEPTED = (
    "a path (file, folder or glob), a PIL image, a uint8 array (H, W), (H, W, C) or (B, H, W, C), "
    "a float tensor (B, C, H, W) in [0, 1], or a list of these"
)


def read_image_input(images: ImageInput, frame: Frame) -> tuple[list[str], Tensor]:
    """Anything of `ACCEPTED` -> (a name for each image, float32 (B, C, H, W) in [0, 1] as the model takes it).

    Files, pictures and uint8 arrays are resized as the model's training images were; a float tensor must have the
    model's size already and is taken as it is. A name is the path, or `image 0` and so on. Raises `UserError` for
    another kind, shape or range, for a missing or unreadable file, and for no image at all.
    """
    names: list[str | None] = []
    parts: list[Tensor] = []
    for one in _each(images):
        own, pixels = _read(one, frame)
        names += own
        parts.append(pixels)
    if not names:
        raise UserError(f"no image was given: give {ACCEPTED}.")
    return [name or f"image {number}" for number, name in enumerate(names)], torch.cat(parts)


def _each(images: Any) -> Iterable[Any]:
    """A list's entries, or the one thing that was given."""
    return images if isinstance(images, list | tuple) else [images]


def _read(one: Any, frame: Frame) -> tuple[list[str | None], Tensor]:
    if isinstance(one, str | PathLike):
        return _read_files(fspath(one), frame)
    if isinstance(one, Tensor):
        tensor = _checked(one, frame)
        return [None] * len(tensor), tensor
    if isinstance(one, Image.Image):
        return [getattr(one, "filename", "") or None], _brought([pixels_of(one.copy())], frame)
    if isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.ndim in (2, 3, 4) and one.size:
        batch = one[None] if one.ndim < 4 else one
        pixels = [_without_alpha(image[..., None] if image.ndim == 2 else image) for image in batch]
        return [None] * len(pixels), _brought(pixels, frame)
    told = f"{one.dtype} array of shape {one.shape}" if isinstance(one, np.ndarray) else type(one).__name__
    raise UserError(f"images must be {ACCEPTED}; found {told}.")


def _read_files(path: str, frame: Frame) -> tuple[list[str | None], Tensor]:
    files = find_inputs([path])
    found = [frame.read(file) for file in files]
    if broken := [one for one in found if isinstance(one, UnreadableImage)]:
        raise UserError(f"{len(broken)} of {len(files)} images cannot be read:\n{unreadable_text(broken)}")
    return [file.name for file in files], image_tensor(np.stack([one.pixels for one in found]))


def _brought(pixels: Sequence[np.ndarray], frame: Frame) -> Tensor:
    return image_tensor(np.stack([frame.bring(image).pixels for image in pixels]))


def _without_alpha(image: np.ndarray) -> np.ndarray:
    """Grey with alpha, or RGBA, without its last channel, as files are decoded."""
    return image[..., :-1] if image.shape[2] in (2, 4) else image


def _checked(images: Tensor, frame: Frame) -> Tensor:
    """The tensor as float32 on the CPU; raises `UserError` unless it is what the model takes."""
    wanted = (frame.channels, *frame.size)
    if not images.is_floating_point() or images.ndim != 4 or tuple(images.shape[1:]) != wanted or not len(images):
        raise UserError(
            f"a tensor of images must be float and of shape (B, {', '.join(map(str, wanted))}), the model's; found "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}. uint8 arrays of any size are resized."
        )
    images = images.detach().cpu().float()
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise UserError(f"a tensor of images must lie in [0, 1], without NaN; found {low:g} to {high:g}.")
    return images
