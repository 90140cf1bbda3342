"""Smooth interpolation of hidden pixels from the visible ones.

It solves Laplace's equation with the visible pixels as boundary values (Perez et al., "Poisson image editing", 2003,
sec. 2), which is also the least-squares estimate for images with a 1/f^2 power spectrum. The solver goes from coarse to
fine and applies Chebyshev-accelerated averaging of each hidden pixel's four neighbours (Golub and Varga, 1961; Saad,
"Iterative methods for sparse linear systems", 2003, sec. 12.3). A network predicts the difference to this
interpolation. For a single hidden rectangle, `laplace_fill.py` is exact and faster.

On photographs its squared error is below that of Telea's inpainting (`tests/pretext/test_smooth.py`), so an untrained
network starts above the classic repair. That is why `skill_learned` counts the untrained prediction among the rules.
"""
# B images, C channels, H W pixels

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.pretext.hiding import blank

ITERATIONS = 10  # at every resolution; more of them cost in proportion and hardly lower the error
SPECTRAL_RADIUS = 0.99  # sets the acceleration: plain averaging in a hole of about 22 pixels has cos(pi / 23)
CHUNK = 64  # images at a time, so that they fit the processor's cache


def fill_smoothly(images: Tensor, mask: Tensor) -> Tensor:
    """(B, C, H, W), mask (B, 1, H, W) True = hidden -> the images with hidden pixels interpolated.

    Visible pixels stay unchanged; hidden values, NaN included, have no influence. An image without a visible pixel
    becomes 0.5, the middle of the range.
    """
    parts = [_fill(part, hidden) for part, hidden in zip(images.split(CHUNK), mask.split(CHUNK), strict=True)]
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def visible_mean(images: Tensor, mask: Tensor) -> Tensor:
    """(B, C, 1, 1): the mean of each image's visible pixels; 0.5 where no pixel is visible."""
    return mean_of_visible(blank(images, mask), mask)


def mean_of_visible(visible: Tensor, mask: Tensor) -> Tensor:
    """As `visible_mean`, for images (B, C, H, W) whose hidden pixels are already 0."""
    total = visible.sum((2, 3), keepdim=True)
    count = (~mask).sum((2, 3), keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), 0.5)


def _fill(images: Tensor, mask: Tensor) -> Tensor:
    seen = (~mask).to(images.dtype)  # (B, 1, H, W)
    levels = [(blank(images, mask), seen)]
    while max(levels[-1][1].shape[-2:]) > 1:
        values, weight = levels[-1]
        total, share = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (values * weight, weight))
        levels.append((total / share.clamp(min=1e-12), (share > 0).to(images.dtype)))
    known, weight = levels.pop()
    values = torch.where(weight > 0, known, 0.5)
    for known, weight in reversed(levels):
        coarse = F.interpolate(values, size=known.shape[-2:], mode="bilinear", align_corners=False)
        values = _relax(torch.where(weight == 0, coarse, known), weight == 0)
    return torch.where(mask, values, images)


def _relax(values: Tensor, hidden: Tensor) -> Tensor:
    """Average each hidden pixel's four neighbours for `ITERATIONS` steps; on a CPU only in windows around the holes."""
    if values.device.type != "cpu":  # locating the holes would synchronise with the GPU
        return _relax_all(values, hidden)
    if not bool(hidden.any()):
        return values
    windows = _windows(hidden)
    if windows is None:
        return _relax_all(values, hidden)
    first_row, first_column, height, width = windows
    rows = (first_row[:, None] + torch.arange(height))[:, None, :, None]  # (B, 1, h, 1)
    columns = (first_column[:, None] + torch.arange(width))[:, None, None, :]  # (B, 1, 1, w)
    image = torch.arange(len(values))[:, None, None, None]
    channel = torch.arange(values.shape[1])[None, :, None, None]
    relaxed = _relax_all(values[image, channel, rows, columns], hidden[image, 0, rows, columns])
    return values.index_put((image, channel, rows, columns), relaxed)


def _windows(hidden: Tensor) -> tuple[Tensor, Tensor, int, int] | None:
    """(B,) first rows and columns, height and width of equally large windows around each image's hidden pixels.

    A window includes the visible pixels next to the hole; the rest of the image has no influence. None where the
    windows cover more than half of the image.
    """
    spans = []
    for dim in (2, 3):
        line = hidden.any(5 - dim)[:, 0].to(torch.uint8)  # (B, length)
        length = line.shape[1]
        first, last = line.argmax(1), length - 1 - line.flip(1).argmax(1)
        empty = line.amax(1) == 0
        first, last = first.masked_fill(empty, 0), last.masked_fill(empty, 0)
        size = min(int((last - first).max()) + 3, length)
        spans.append(((first - 1).clamp(0, length - size), size))
    (first_row, height), (first_column, width) = spans
    if 2 * height * width > hidden.shape[2] * hidden.shape[3]:
        return None
    return first_row, first_column, height, width


def _relax_all(values: Tensor, hidden: Tensor) -> Tensor:
    """`_relax` over the whole image, by Chebyshev iteration."""
    before, omega = values, 1.0
    for step in range(ITERATIONS):
        if step:
            omega = 1 / (1 - SPECTRAL_RADIUS**2 * omega / (2 if step == 1 else 4))
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        around = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        before, values = values, torch.where(hidden, torch.lerp(before, around * 0.25, omega), values)
    return values
