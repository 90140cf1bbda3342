"""Simple rules fitted on training images; a network's repair counts as learned only if it beats them.

- `mean_colour`: the mean colour of the images, at every pixel;
- `pixel_mean`: the mean image;
- `linear`: a ridge regression from the damaged image, averaged down to at most 16 x 16 pixels, to the residual at each
  scored pixel; the strength of its regularisation is chosen by fitting three quarters of the images and predicting the
  rest. Pixels that are scored in the same images (the cell of a random mask) have a regression of their own, on them;
- `levels` (without hidden pixels): the mean residual at each grey level of the damaged pixel;
- `local_linear` (without hidden pixels): a least-squares 5 x 5 filter of the damaged image, the same at every pixel.

The residual is the difference to the repair of an all-zero prediction (a smooth interpolation, the grey or the enlarged
image), so the linear rules shrink towards that repair. Means are fitted for each source, slopes for all images:
recognising the source is easy for a network and must not count as skill.
"""
# n images fitted to, B images repaired, S sources, C channels, H W pixels, m scored values, p inputs

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

REDUCED_SIDE = 16  # pixels: 768 inputs for colour; a few hundred images do not support more
REDUCTION = 4  # averages at least this many pixels per side; local rules cover finer detail
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge, in units of the mean eigenvalue; infinity is a candidate too
CHOOSING_PIXELS = 256  # scored values that the strength is chosen by, at even steps
NUM_LEVELS = 256
LEVEL_PIXELS = 2_000_000  # enough for the means at 256 levels of three channels in a dozen sources
FILTER = 5  # pixels a side
FILTER_PIXELS = 200_000  # enough pixels for fitting a filter's 75 weights
MOST_GROUPS = 1024  # of pixels that are scored together: one for each cell of a fine grid; beyond, `linear` is left out
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]  # damaged, untrained repair, source (B,) -> repaired, unclipped


@dataclass(frozen=True)
class FoldImages:
    """Undamaged training images (n, C, H, W) and their sources (n,) int64.

    `chooses` (n,) bool marks the images for choosing a strength, `mean` (S, C, H, W) is the mean image of each source
    over the whole fold.
    """

    images: Tensor
    source: Tensor
    chooses: Tensor
    mean: Tensor

    def select(self, rows: Tensor) -> FoldImages:
        """Return the images `rows`, (n,) bool or numbers (m,), with the same mean images."""
        return replace(self, images=self.images[rows], source=self.source[rows], chooses=self.chooses[rows])


def fit_rules(fold: FoldImages, damaged: Tensor, untrained: Tensor, scored: Tensor, hides: bool) -> dict[str, Rule]:
    """Fit the rules to a damage of each image: `damaged`, `untrained` (n, C, H, W), `scored` (n, 1, H, W) bool."""
    colour = fold.mean.mean((2, 3), keepdim=True)
    residual = fold.images - untrained
    rules: dict[str, Rule] = {
        "mean_colour": lambda seen, base, source: colour[source].expand_as(seen),
        "pixel_mean": lambda seen, base, source: fold.mean[source],
    }
    if (linear := _fit_linear(fold, damaged, residual, scored)) is not None:
        rules["linear"] = linear
    if not hides:
        rules["levels"] = _fit_levels(fold, damaged, residual)
        rules["local_linear"] = _fit_filter(damaged, residual)
    return rules


def _fit_linear(fold: FoldImages, damaged: Tensor, residual: Tensor, scored: Tensor) -> Rule | None:
    """One regression for each group of pixels that are scored in the same images; None for more than `MOST_GROUPS`."""
    same = bool((scored == scored[:1]).all())  # one row is then enough to find the groups, which is faster
    patterns, group = (scored[:1] if same else scored).flatten(1).unique(dim=1, return_inverse=True)  # bool, (H*W,)
    patterns = patterns.expand(len(scored), -1)  # (n, G)
    if patterns.shape[1] > MOST_GROUPS:
        return None
    x, y = _reduced(damaged), residual.flatten(2)  # (n, p), (n, C, H*W)
    fitted: list[tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]] = []
    for number, rows in enumerate(patterns.unbind(1)):
        where = (group == number).nonzero()[:, 0]
        if bool((rows & ~fold.chooses).any()):
            of_group = y[:, :, where][rows].flatten(1)  # the other way round would copy all pixels for each group
            fitted.append((where, _fit_group(len(fold.mean), fold.source[rows], fold.chooses[rows], x[rows], of_group)))

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        repaired, inputs = base.flatten(2).clone(), _reduced(seen)
        for where, predict in fitted:
            repaired[:, :, where] += predict(inputs, source).view(len(base), -1, len(where))
        return repaired.view_as(base)

    return rule


def _fit_group(
    num_sources: int, source: Tensor, chooses: Tensor, x: Tensor, y: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from inputs (B, p) and sources (B,) to residuals (B, m), fitted to x (n, p) and y (n, m)."""
    x_mean, y_mean = (_source_means(values, source, num_sources) for values in (x, y))
    x, y = x - x_mean[source], y - y_mean[source]
    step = y.shape[1] // CHOOSING_PIXELS | 1  # an odd step reaches every column of an image
    strength = _best_strength(x, y[:, ::step], chooses)
    slope = None if strength is None else _Normal(x, y).slope(strength)  # (p, m)

    def predict(inputs: Tensor, source: Tensor) -> Tensor:
        found = y_mean[source]
        return found if slope is None else found + (inputs - x_mean[source]) @ slope

    return predict


def _best_strength(x: Tensor, y: Tensor, chooses: Tensor) -> float | None:
    """Return the strength of least error on the choice images; None (slopes of 0) without such images or gain."""
    if not bool(chooses.any()) or int((~chooses).sum()) < 2:
        return None
    x_choice, y_choice = x[chooses], y[chooses]
    normal = _Normal(x[~chooses], y[~chooses])
    errors = {s: float((y_choice - x_choice @ normal.slope(s)).square().sum()) for s in STRENGTHS}
    chosen = min(errors, key=errors.__getitem__)
    return chosen if errors[chosen] < float(y_choice.square().sum()) else None


class _Normal:
    """The normal equations of a ridge regression from x (n, p) to y (n, m); in the dual form if n < p."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        dual = len(x) < x.shape[1]
        self._gram = x @ x.T if dual else x.T @ x
        self._right = y if dual else x.T @ y
        self._outside = x.T if dual else None

    def slope(self, strength: float) -> Tensor:
        """(p, m); `strength` is in units of the mean eigenvalue."""
        diagonal = self._gram.diagonal()
        penalised = self._gram.clone()
        penalised.diagonal().add_(strength * diagonal.mean().clamp(min=1e-12))
        solved = torch.cholesky_solve(self._right, torch.linalg.cholesky(penalised))
        return solved if self._outside is None else self._outside @ solved


def _reduced(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, p)."""
    height, width = (max(1, min(REDUCED_SIDE, length // REDUCTION)) for length in images.shape[-2:])
    return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)


def _source_means(values: Tensor, source: Tensor, num_sources: int) -> Tensor:
    """(n, k) -> (S, k): the mean of each source; the mean of all images for a source without any."""
    total = values.new_zeros(num_sources, values.shape[1]).index_add_(0, source, values)
    count = source.bincount(minlength=num_sources)[:, None]
    return torch.where(count > 0, total / count.clamp(min=1), values.mean(0))


def _fit_levels(fold: FoldImages, damaged: Tensor, residual: Tensor) -> Rule:
    rows = _spread_rows(damaged, LEVEL_PIXELS)
    index = _level_index(damaged[rows], fold.source[rows])
    size = len(fold.mean) * damaged.shape[1] * NUM_LEVELS
    total = torch.bincount(index.flatten(), residual[rows].flatten().double(), minlength=size)
    table = (total / index.flatten().bincount(minlength=size).clamp(min=1)).float()

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        return base + table[_level_index(seen, source)]

    return rule


def _level_index(images: Tensor, source: Tensor) -> Tensor:
    """(B, C, H, W) int64: source, channel and grey level as one number."""
    level = (images * (NUM_LEVELS - 1)).round().long().clamp(0, NUM_LEVELS - 1)
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
    return (source[:, None, None, None] * images.shape[1] + channel) * NUM_LEVELS + level


def _fit_filter(damaged: Tensor, residual: Tensor) -> Rule:
    channels, rows = damaged.shape[1], _spread_rows(damaged, FILTER_PIXELS)
    inputs = _windows(damaged[rows]).transpose(1, 2).flatten(0, 1).double()  # (count * H * W, C * 25 + 1)
    targets = residual[rows].flatten(2).transpose(1, 2).flatten(0, 1).double()  # (count * H * W, C)
    gram = inputs.T @ inputs
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())  # three equal channels of grey images give a singular matrix
    weights = torch.linalg.solve(gram, inputs.T @ targets).T.float()  # (C, C * 25 + 1)
    kernel = weights[:, :-1].view(channels, channels, FILTER, FILTER)

    def rule(seen: Tensor, base: Tensor, source: Tensor) -> Tensor:
        padded = F.pad(seen, [FILTER // 2] * 4, mode="replicate")
        return base + F.conv2d(padded, kernel, weights[:, -1])

    return rule


def _spread_rows(images: Tensor, num_pixels: int) -> Tensor:
    """(m,) row numbers of images (n, C, H, W) at even steps, one or more, of about `num_pixels` pixels in all."""
    count = max(1, min(len(images), num_pixels // images[0, 0].numel()))
    return torch.linspace(0, len(images) - 1, count, device=images.device).long()


def _windows(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C * 25 + 1, H * W): the 5 x 5 pixels around each pixel, and a constant 1."""
    found = F.unfold(F.pad(images, [FILTER // 2] * 4, mode="replicate"), FILTER)
    return torch.cat((found, torch.ones_like(found[:, :1])), dim=1)
