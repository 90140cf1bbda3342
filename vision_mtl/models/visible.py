"""Encoding of only the visible tokens in plain ViTs, so that hidden tokens neither enter attention nor cost time.

He et al., "Masked autoencoders are scalable vision learners", 2022, https://arxiv.org/abs/2111.06377, sec. 3.
Differs from the paper: masks may have any form, and the images of a batch may differ in the number of visible tokens
(one pass for each number).
"""
# B images, N tokens of a full image, n visible tokens, D width, h w token grid, P patch side

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

# distinct numbers of visible tokens in this process, and their maximum N -> those of all processes, ascending
CommonCounts = Callable[[list[int], int], list[int]]
Encode = Callable[[VisionTransformer, Tensor, Tensor, Sequence[int]], list[Tensor]]
Runs = Sequence[tuple[slice, int]]  # consecutive rows of a whole batch, and the number of visible tokens of each row


def takes_visible_tokens(model: nn.Module) -> bool:
    """True for timm's plain VisionTransformer: tokens in raster order, positions added before the blocks."""
    # subclasses that override these methods may order or embed tokens otherwise
    plain = VisionTransformer
    return isinstance(model, plain) and all(
        getattr(type(model), method) is getattr(plain, method)
        for method in ("_pos_embed", "forward_features", "forward_intermediates")
    )


def hidden_tokens(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool hidden pixels -> (B, 1, h, w) bool tokens, True where all pixels of a token are hidden.

    A token with a visible pixel, or a part of one where images are enlarged, stays visible; its hidden pixels contain
    the fill of the pretext.
    """
    if mask.shape[-2] % grid[0] or mask.shape[-1] % grid[1]:
        return F.adaptive_avg_pool2d(mask.float(), grid) == 1.0  # windows from floor(i H / h) to ceil((i + 1) H / h)
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

    With `runs` there is no GPU synchronisation, and shapes depend only on the runs. Where all processes must run the
    blocks equally often, `common_counts` collects the numbers of visible tokens. `encode` replaces `encode_tokens`.
    """
    grid = tuple(hidden.shape[-2:])
    given = (encode or encode_tokens, model, images, hidden.flatten(1), indices)
    maps = _encode_by_count(*given, common_counts) if runs is None else _encode_runs(*given, runs)
    return [m.transpose(1, 2).unflatten(2, grid) for m in maps]  # (B, D, h, w)


def _encode_runs(
    encode: Encode, model: VisionTransformer, images: Tensor, hidden: Tensor, indices: Sequence[int], runs: Runs
) -> list[Tensor]:
    """(B, N) hidden tokens, with the numbers of visible ones from `runs` -> maps (B, N, D)."""
    pieces: list[list[Tensor]] = [[] for _ in runs]  # the maps (b, N, D) of each run
    for count in sorted({count for _, count in runs}):
        numbers = [number for number, (_, own) in enumerate(runs) if own == count]
        rows = [runs[number][0] for number in numbers]
        # visible tokens first, in order
        tokens = concat_rows(hidden, rows).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]  # (b, n)
        encoded = encode(model, concat_rows(images, rows), tokens, indices)
        lengths = [own.stop - own.start for own in rows]
        for features in encoded:
            maps = _scatter_tokens(features, tokens, hidden.shape[1]).split(lengths)
            for number, own_map in zip(numbers, maps, strict=True):
                pieces[number].append(own_map)
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces, strict=True)]


def concat_rows(values: Tensor, rows: Sequence[slice]) -> Tensor:
    """Concatenate the given slices of (B, ...)."""
    return torch.cat([values[own] for own in rows]) if len(rows) > 1 else values[rows[0]]


def _encode_by_count(
    encode: Encode,
    model: VisionTransformer,
    images: Tensor,
    hidden: Tensor,
    indices: Sequence[int],
    common_counts: CommonCounts | None,
) -> list[Tensor]:
    """(B, N) hidden tokens, with the numbers of visible ones read from the device -> maps (B, N, D)."""
    visible = ~hidden
    counts = visible.sum(1)
    found = []  # for each number of visible tokens: its rows, and their maps (b, N, D)
    present = counts.unique().tolist()
    for count in present if common_counts is None else common_counts(present, visible.shape[1]):
        rows = (counts == count).nonzero()[:, 0]
        tokens = visible[rows].nonzero()[:, 1].view(len(rows), count)  # (b, n)
        chosen = images[rows]
        if len(rows) == 0:  # only other processes have such images: encode a blank one as an extra row, cut off below
            rows, tokens = rows.new_full((1,), len(images)), torch.arange(count, device=rows.device)[None]
            chosen = torch.zeros_like(images[:1])
        encoded = encode(model, chosen, tokens, indices)
        found.append((rows, [_scatter_tokens(features, tokens, visible.shape[1]) for features in encoded]))
    if len(found) == 1:
        return found[0][1]
    order = torch.cat([rows for rows, _ in found]).argsort()[: len(images)]
    return [torch.cat(parts)[order] for parts in zip(*(parts for _, parts in found), strict=True)]


def _scatter_tokens(features: Tensor, tokens: Tensor, count: int) -> Tensor:
    """(b, n, D) at positions `tokens` (b, n) -> (b, count, D), 0 elsewhere."""
    full = features.new_zeros(len(features), count, features.shape[-1])
    return full.scatter(1, tokens[..., None].expand_as(features), features)


def encode_tokens(model: VisionTransformer, images: Tensor, tokens: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Run the tokens at positions `tokens` (b, n) through the blocks -> (b, n, D) after each block of `indices`."""
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
