"""Strong changes of an image for consistency training: two random ones of a list, then Cutout.

FixMatch: Sohn et al., 2020, https://arxiv.org/abs/2001.07685, sec. 2.3 and appendix E: the list and its ranges (table
12). DeVries and Taylor, "Cutout", 2017, https://arxiv.org/abs/1708.04552.
Differs from the paper: borders are reflected, not filled; blur is added; there is no change that keeps the image.
Nothing here mirrors an image: only a task's own policy may, because a mirrored digit is no digit.
"""
# C channels

from __future__ import annotations

from types import ModuleType
from typing import Any

import cv2

NUM_CHANGES = 2  # of an image, as in the paper
DEGREES = 30.0  # largest rotation
SHEAR = 17.0  # degrees; the paper's .3
SHIFT = 0.3  # share of the side
CUTOUT = (0.1, 0.5)  # side of the hidden square as a share of the image's
GREY = 0.5


def with_strong_changes(library: ModuleType, policy: Any, channels: int, is_uint8: bool) -> Any:
    """Return an `albumentations.Compose` of the weak `policy` (None: none), two strong changes and Cutout."""
    listed = [*_geometric(library), *_photometric(library, channels, is_uint8)]
    hole = library.CoarseDropout((1, 1), CUTOUT, CUTOUT, fill=round(GREY * 255) if is_uint8 else GREY, p=1.0)
    weak = [] if policy is None else [policy]
    return library.Compose([*weak, library.SomeOf(listed, n=NUM_CHANGES, replace=False, p=1.0), hole])


def _geometric(library: ModuleType) -> list[Any]:
    still = (0.0, 0.0)
    changes: list[dict[str, Any]] = [
        {"rotate": (-DEGREES, DEGREES)},
        {"shear": {"x": (-SHEAR, SHEAR), "y": still}},
        {"shear": {"x": still, "y": (-SHEAR, SHEAR)}},
        {"translate_percent": {"x": (-SHIFT, SHIFT), "y": still}},
        {"translate_percent": {"x": still, "y": (-SHIFT, SHIFT)}},
    ]
    return [library.Affine(**change, border_mode=cv2.BORDER_REFLECT_101, p=1.0) for change in changes]


def _photometric(library: ModuleType, channels: int, is_uint8: bool) -> list[Any]:
    """Return the changes that images of C channels and this type allow."""
    still = (0.0, 0.0)
    changes = [
        library.RandomBrightnessContrast((-0.5, 0.5), still, p=1.0),
        library.RandomBrightnessContrast(still, (-0.7, 0.7), p=1.0),
        library.Sharpen((0.1, 0.9), p=1.0),
        library.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.2), p=1.0),
        library.Solarize((0.3, 1.0), p=1.0),
        library.Posterize((4, 7), p=1.0),
        library.AutoContrast(p=1.0),
    ]
    if channels in (1, 3):
        same = (1.0, 1.0)
        changes += [
            library.Equalize(p=1.0),
            library.ColorJitter(brightness=same, contrast=same, saturation=(0.1, 1.9), hue=still, p=1.0),
        ]
    return changes
