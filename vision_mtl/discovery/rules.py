"""Rules fitted on the training fold, with no network: what a repair must beat before it counts as learnt.

- `mean_colour`: the fold's mean colour, for every pixel;
- `pixel_mean`: the mean image;
- `linear`: a ridge regression from the damaged image, averaged down to at most 16 x 16 pixels, to what is missing at
  each scored pixel; its strength is chosen on a quarter of the images that it is not fitted to;
- `levels` (where nothing is hidden): the mean of what is missing at each grey level of the damaged pixel;
- `local_linear` (where nothing is hidden): a least-squares 5 x 5 filter of the damaged image, the same at every pixel.

What is missing is the difference to the repair that an all-zero prediction gives (a smooth interpolation, the grey or
the bicubic image), so the linear rules shrink towards that. Means are taken source by source, slopes over all: a
network can tell sources apart, and must not be praised for that alone.
"""
# n images fitted to, B images repaired, S sources, C channels, H W pixels, m scored values, p inputs

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

REDUCED_SIDE = 16  # pixels: 768 inputs for colour; a few hundred images cannot support more
REDUCTION = 4  # at least this many pixels a side are averaged: finer detail is left to local rules
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # ridge, in units of the inputs' mean variance times n; infinity beside them
NUM_LEVELS = 256
FILTER = 5  # pixels a side
FILTER_PIXELS = 200_000  # pixels that a filter is fitted to: 75 weights need no more
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]  # damaged, untrained repair, source (B,) -> repaired, unclipped


@dataclass(frozen=True)
class FoldImages:
    """Undamaged training images (n, C, H, W), their source (n,), and which are kept to choose a strength on (n,) bool.

    `mean` is (S, C, H, W), the mean image of each source over the whole fold.
    """

    images: Tensor
    source: Tensor
    chooses: Tensor
    mean: Tensor

    def select(self, rows: Tensor) -> FoldImages:
        """Some of the images, (n,) bool; the mean images stay."""
        return replace(self, images=self.images[rows], source=self.source[rows], chooses=self.chooses[rows])


def fit_rules(fold: FoldImages, damaged: Tensor, untrained: Tensor, scored: Tensor, hides: bool) -> dict[str, Rule]:
    """The rules for one damage of the fold's images: `damaged`, `untrained` (n, C, H, W), `scored` (1, 1, H, W)."""
    colour = fold.mean.mean((2, 3), keepdim=True)
    missing = fold.images - untrained
    rules: dict[str, Rule] = {
        "mean_colour": lambda seen, base, source: colour[source].expand_as(seen),
        "pixel_mean": lambda seen, base, source: fold.mean[source],
        "linear": _fit_linear(fold, damaged, missing, scored),
    }
    if not hides:
        rules["levels"] = _fit_levels(fold, damaged, missing)
        rules["local_linear"] = _fit_filter(damaged, missing)
    return rules


def _fit_linear(fold: FoldImages, damaged: Tensor, missing: Tensor, scored: Tensor) -> Rule:
    where = scored[0, 0].expand(damaged.shape[1:]).flatten()  # (C*H*W,)
    x, y = _reduced(damaged), missing.flatten(1)[:, where]  # (n, p), (n, m)
    fit, choose, num_sources = ~fold.chooses, fold.chooses, len(fold.mean)
    x_mean, y_mean = (_source_means(v[fit], fold.source[fit], num_sources) for v in (x, y))
    x, y = x - x_mean[fold.source], y - y_mean[fold.source]
    slope = _ridge(x[fit], y[fit], x[choose], y[choose])  # (p, m)

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        found = base.flatten(1).clone()
        found[:, where] += y_mean[source] + (_reduced(seen) - x_mean[source]) @ slope
        return found.view_as(base)

    return rule


def _ridge(x: Tensor, y: Tensor, x_choice: Tensor, y_choice: Tensor) -> Tensor:
    """(p, m) slopes; the strength is that of least error on the choice images; without any, slopes are 0."""
    best = torch.zeros(x.shape[1], y.shape[1], device=x.device)
    if len(x_choice) == 0 or len(x) < 2:
        return best
    values, vectors = torch.linalg.eigh(x @ x.T)  # the dual form: images are fewer than inputs
    inside = vectors.T @ y  # (n, m)
    across = x_choice @ x.T @ vectors
    unit, lowest, chosen = values.mean().clamp(min=1e-12), y_choice.square().sum(), None
    for strength in STRENGTHS:
        weighted = inside / (values.clamp(min=0) + strength * unit)[:, None]
        error = (y_choice - across @ weighted).square().sum()
        if error < lowest:
            lowest, chosen = error, weighted
    return best if chosen is None else x.T @ (vectors @ chosen)


def _reduced(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, p)."""
    height, width = (max(1, min(REDUCED_SIDE, length // REDUCTION)) for length in images.shape[-2:])
    return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)


def _source_means(values: Tensor, source: Tensor, num_sources: int) -> Tensor:
    """(n, k) -> (S, k); the mean over all images for a source that has none."""
    total = values.new_zeros(num_sources, values.shape[1]).index_add_(0, source, values)
    count = source.bincount(minlength=num_sources)[:, None]
    return torch.where(count > 0, total / count.clamp(min=1), values.mean(0))


def _fit_levels(fold: FoldImages, damaged: Tensor, missing: Tensor) -> Rule:
    place = _level_places(damaged, fold.source)
    size = len(fold.mean) * damaged.shape[1] * NUM_LEVELS
    total = torch.bincount(place.flatten(), missing.flatten().double(), minlength=size)
    table = (total / place.flatten().bincount(minlength=size).clamp(min=1)).float()

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        return base + table[_level_places(seen, source)]

    return rule


def _level_places(images: Tensor, source: Tensor) -> Tensor:
    """(B, C, H, W) int64: source, channel and level as one number."""
    level = (images * (NUM_LEVELS - 1)).round().long().clamp(0, NUM_LEVELS - 1)
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
    return (source[:, None, None, None] * images.shape[1] + channel) * NUM_LEVELS + level


def _fit_filter(damaged: Tensor, missing: Tensor) -> Rule:
    channels, pixels = damaged.shape[1], missing[0, 0].numel()
    few = max(1, min(len(damaged), FILTER_PIXELS // pixels))
    rows = torch.linspace(0, len(damaged) - 1, few, device=damaged.device).long()
    inputs = _windows(damaged[rows]).transpose(1, 2).flatten(0, 1).double()  # (few * H * W, C * 25 + 1)
    wanted = missing[rows].flatten(2).transpose(1, 2).flatten(0, 1).double()  # (few * H * W, C)
    gram = inputs.T @ inputs
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())  # grey images have three equal channels: a singular matrix
    weights = torch.linalg.solve(gram, inputs.T @ wanted).T.float()  # (C, C * 25 + 1)
    kernel = weights[:, :-1].view(channels, channels, FILTER, FILTER)

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        padded = F.pad(seen, [FILTER // 2] * 4, mode="replicate")
        return base + F.conv2d(padded, kernel, weights[:, -1])

    return rule


def _windows(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C * 25 + 1, H * W): each pixel's surroundings, and a 1."""
    found = F.unfold(F.pad(images, [FILTER // 2] * 4, mode="replicate"), FILTER)
    return torch.cat((found, torch.ones_like(found[:, :1])), dim=1)
