"""Plain ViTs encode only what is visible: hidden tokens never enter attention, and cost nothing.

He et al., "Masked autoencoders are scalable vision learners", 2022, https://arxiv.org/abs/2111.06377, sec. 3.
Differs from the paper: any mask will do, and images with other numbers of visible tokens may share a batch (one pass
for each number).
"""
# B images, N tokens of a full image, n visible tokens, D width, h w token grid, P patch side

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

# the numbers of visible tokens of this process and the most there may be -> those of all processes, ascending
CommonCounts = Callable[[list[int], int], list[int]]
Encode = Callable[[VisionTransformer, Tensor, Tensor, Sequence[int]], list[Tensor]]
Runs = Sequence[tuple[slice, int]]  # a whole batch in order: consecutive rows, and how many visible tokens each has


def takes_visible_tokens(model: nn.Module) -> bool:
    """True for timm's plain VisionTransformer: tokens in raster order, positions added before the blocks."""
    plain = VisionTransformer
    return isinstance(model, plain) and all(
        getattr(type(model), method) is getattr(plain, method)
        for method in ("_pos_embed", "forward_features", "forward_intermediates")
    )


def hidden_tokens(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool pixels -> (B, 1, h, w) bool: tokens whose every pixel is hidden.

    A token with any visible pixel stays visible: its hidden pixels hold the pretext's fill.
    """
    patch = (mask.shape[-2] // grid[0], mask.shape[-1] // grid[1])
    return F.avg_pool2d(mask.float(), patch) == 1.0


def encode_visible(
    model: VisionTransformer,
    images: Tensor,
    hidden: Tensor,
    indices: Sequence[int],
    runs: Runs | None = None,
    common_counts: CommonCounts | None = None,
    encode: Encode | None = None,
) -> list[Tensor]:
    """Normalised images (B, C, H, W) and hidden tokens (B, 1, h, w) -> maps (B, D, h, w), 0 at hidden positions.

    With `runs` nothing is asked of the device, and shapes depend on the runs alone. Where processes must run the blocks
    equally often, `common_counts` gives the numbers of visible tokens of all. `encode` stands for `encode_tokens`.
    """
    grid = tuple(hidden.shape[-2:])
    given = (encode or encode_tokens, model, images, hidden.flatten(1), indices)
    maps = _of_counted(*given, common_counts) if runs is None else _of_runs(*given, runs)
    return [m.transpose(1, 2).unflatten(2, grid) for m in maps]  # (B, D, h, w)


def _of_runs(
    encode: Encode, model: VisionTransformer, images: Tensor, hidden: Tensor, indices: Sequence[int], runs: Runs
) -> list[Tensor]:
    """(B, N) hidden tokens, as many in each row as `runs` says -> maps (B, N, D)."""
    pieces: list[list[Tensor]] = [[] for _ in runs]  # of each run, its maps (b, N, D)
    for count in sorted({count for _, count in runs}):
        numbers = [number for number, (_, own) in enumerate(runs) if own == count]
        rows = [runs[number][0] for number in numbers]
        # the visible ones first, in order
        tokens = joined(hidden, rows).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]  # (b, n)
        found = encode(model, joined(images, rows), tokens, indices)
        lengths = [part.stop - part.start for part in rows]
        for m in found:
            for number, part in zip(numbers, _spread(m, tokens, hidden.shape[1]).split(lengths), strict=True):
                pieces[number].append(part)
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces, strict=True)]


def joined(values: Tensor, rows: Sequence[slice]) -> Tensor:
    """The rows of (B, ...) that some slices name, together."""
    return torch.cat([values[part] for part in rows]) if len(rows) > 1 else values[rows[0]]


def _of_counted(
    encode: Encode,
    model: VisionTransformer,
    images: Tensor,
    hidden: Tensor,
    indices: Sequence[int],
    common_counts: CommonCounts | None,
) -> list[Tensor]:
    """(B, N) hidden tokens, as many in each row as the device says that there are -> maps (B, N, D)."""
    visible = ~hidden
    counts = visible.sum(1)
    found = []  # for each number of visible tokens: the rows that have it, and their maps (b, N, D)
    present = counts.unique().tolist()
    for count in present if common_counts is None else common_counts(present, visible.shape[1]):
        rows = (counts == count).nonzero()[:, 0]
        tokens = visible[rows].nonzero()[:, 1].view(len(rows), count)  # (b, n)
        chosen = images[rows]
        if len(rows) == 0:  # only others have such images: a blank one stands in, as the last row, and is cut off below
            rows, tokens = rows.new_full((1,), len(images)), torch.arange(count, device=rows.device)[None]
            chosen = torch.zeros_like(images[:1])
        found.append((rows, [_spread(m, tokens, visible.shape[1]) for m in encode(model, chosen, tokens, indices)]))
    if len(found) == 1:
        return found[0][1]
    order = torch.cat([rows for rows, _ in found]).argsort()[: len(images)]
    return [torch.cat(parts)[order] for parts in zip(*(parts for _, parts in found), strict=True)]


def _spread(features: Tensor, tokens: Tensor, count: int) -> Tensor:
    """(b, n, D) of the tokens numbered `tokens` (b, n) -> (b, count, D), 0 elsewhere."""
    full = features.new_zeros(len(features), count, features.shape[-1])
    return full.scatter(1, tokens[..., None].expand_as(features), features)


def encode_tokens(model: VisionTransformer, images: Tensor, tokens: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """The tokens numbered `tokens` (b, n) of each image through the blocks -> (b, n, D) after each of `indices`."""
    prefix = model.num_prefix_tokens
    x = model._pos_embed(model.patch_embed(images))  # (b, prefix + N, D)
    chosen = x[:, prefix:].gather(1, tokens[..., None].expand(-1, -1, x.shape[-1]))
    x = model.norm_pre(torch.cat((x[:, :prefix], chosen), dim=1))
    found = []
    for i, block in enumerate(model.blocks):
        x = block(x)
        if i in indices:
            found.append(model.norm(x)[:, prefix:])
    return found
