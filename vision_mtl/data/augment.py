"""Augmentation by albumentations: a task's policy with draws that depend on the image and epoch, not on the order.

Masks get the image's geometric transform with nearest-neighbour sampling. Where a policy fills a border with a
constant, the mask is ignored; where it reflects the image, the mask is reflected too and stays valid.
"""
# H W pixels, C channels

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import yaml

from vision_mtl.core.errors import UserError
from vision_mtl.data.depth import LEVELS, floats, is_deep
from vision_mtl.data.options import POLICIES
from vision_mtl.data.strong_views import with_strong_changes
from vision_mtl.data.targets import IGNORED

SHIFT = 0.06  # largest shift as a share of height and width: digits and chins stay inside the image
SCALE = (0.9, 1.1)
DEGREES = 10.0  # largest rotation: a 6 does not become a 9, nor a 1 a 7
LIGHT = 0.15  # largest relative change of brightness and contrast


class Augmenter:
    """Applies a task's augmentation policy to its training images; threads may share it.

    A policy gets images of 8 bits as uint8; 16-bit levels as float32 in [0, 1], because few of its steps take uint16.
    With `strong` the policy is followed by strong changes (`data/strong_views.py`), with draws of its own. Raises
    `UserError`, also at construction, with the task, its policy and the fault: images must keep their `shape` (H, W, C)
    and type.
    """

    def __init__(
        self,
        task: str,
        augment: str | dict[str, Any],
        shape: tuple[int, int, int],
        dtype: np.dtype | type = np.uint8,
        strong: bool = False,
    ) -> None:
        self.task, self.shape = task, shape
        self.policy = augment if isinstance(augment, str) else "given as a mapping"
        self._pattern = _pipeline(task, self.policy, augment)  # None: images stay as they are
        self._stream = f"{task}\0strong" if strong else task
        if strong:
            self._pattern = with_strong_changes(_library(), self._pattern, shape[2], np.dtype(dtype) == np.uint8)
        self._own = threading.local()  # a pipeline holds its random state, so each thread has one
        height, width, _ = shape
        self.apply(np.zeros(shape, dtype), [np.zeros((height, width), np.uint8)], 0, 0, 0)

    def apply(
        self, image: np.ndarray, masks: Sequence[np.ndarray], seed: int, epoch: int, index: int
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the augmented image (H, W, C) uint8 or uint16 and masks (H, W) uint8; the arguments are not changed.

        The draw depends on (task, strong, seed, epoch, index); `index` is the image's index in the pool.
        """
        if self._pattern is None:
            return image, list(masks)
        pipeline = self._pipeline_of_thread()
        digest = hashlib.blake2b(f"{self._stream}\0{seed} {epoch} {index}".encode(), digest_size=16).digest()
        number = int.from_bytes(digest, "little")
        pipeline.set_random_state(np.random.default_rng(number), random.Random(number))
        deep, image = is_deep(image), floats(image) if is_deep(image) else image
        try:
            found = pipeline(image=image, masks=list(masks)) if masks else pipeline(image=image)
        except Exception as error:  # whatever a user's policy may raise
            raise self._error(f"failed on an image of shape {image.shape}: {error}") from error
        changed = found["image"]
        if changed.shape != self.shape or changed.dtype != image.dtype:
            raise self._error(
                f"made {changed.dtype} of shape {changed.shape} from {image.dtype} of shape {self.shape} (height, "
                "width, channels); images must keep their size and type: leave out resizing and normalisation"
            )
        if deep:
            changed = np.round(np.clip(changed, 0, 1) * LEVELS).astype(np.uint16)
        return changed, list(found["masks"]) if masks else []

    def _pipeline_of_thread(self) -> Any:
        if not hasattr(self._own, "pipeline"):
            self._own.pipeline = copy.deepcopy(self._pattern)
        return self._own.pipeline

    def _error(self, problem: str) -> UserError:
        return _policy_error(self.task, self.policy, problem)


def _policy_error(task: str, policy: str, problem: str) -> UserError:
    return UserError(f"task {task!r}: the augmentation {policy!r} {problem}.")


def _library() -> ModuleType:
    """Return albumentations: imported late because it takes seconds, and without its online check for updates."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations


def _pipeline(task: str, policy: str, augment: str | dict[str, Any]) -> Any:
    """Return the policy as an `albumentations.Compose`, or None for `none`."""
    if augment == "none":
        return None
    library = _library()
    if augment in POLICIES:
        steps = _light(library) + ([library.HorizontalFlip(p=0.5)] if augment == "mirror" else [])
    else:
        steps = [_from_dict(library, task, policy, _read(task, augment) if isinstance(augment, str) else augment)]
    pipeline = library.Compose(steps)
    pipeline.set_mask_interpolation(cv2.INTER_NEAREST)
    _ignore_filled(pipeline)
    return pipeline


def _light(library: ModuleType) -> list[Any]:
    geometry = library.Affine(
        scale=SCALE,
        translate_percent=(-SHIFT, SHIFT),
        rotate=(-DEGREES, DEGREES),
        keep_ratio=True,
        border_mode=cv2.BORDER_REFLECT_101,
        p=1.0,
    )
    return [geometry, library.RandomBrightnessContrast(LIGHT, LIGHT, p=0.8)]


def _read(task: str, file: str) -> Any:
    """Return the content of a .yaml or .json file."""
    path = Path(file).expanduser()
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise _policy_error(task, file, f"cannot be read: {error}") from error


def _from_dict(library: ModuleType, task: str, policy: str, written: Any) -> Any:
    """Return a transform from its serialised form; an argument that the library only warns about is an error."""
    if not isinstance(written, dict) or "transform" not in written:
        raise _policy_error(task, policy, "must be what albumentations.to_dict gives: a mapping with `transform`")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = library.from_dict(_with_tuples(written))
    except KeyError as error:
        raise _policy_error(task, policy, f"names {error}, which albumentations {library.__version__} lacks") from error
    except Exception as error:  # whatever the library raises for a bad argument
        raise _policy_error(task, policy, f"is refused by albumentations: {error}") from error
    refused = [str(warning.message) for warning in caught if "not valid" in str(warning.message)]
    if refused:
        raise _policy_error(task, policy, f"is refused by albumentations: {refused[0]}")
    return found


def _with_tuples(value: Any) -> Any:
    """Return the policy with lists of numbers as tuples, which the library expects for ranges; YAML has only lists."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list):
        inner = [_with_tuples(part) for part in value]
        return inner if any(isinstance(part, dict) for part in inner) else tuple(inner)
    return value


def _ignore_filled(transform: Any) -> None:
    """Fill masks with `IGNORED`, in place; the library's default, 0, would be a class."""
    for inner in getattr(transform, "transforms", []):
        _ignore_filled(inner)
    if getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = IGNORED
