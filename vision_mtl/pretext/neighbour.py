"""Neighbour prediction: classify whether the second of two patches is the right or lower neighbour of the first.

The image analogue of next-sentence prediction, a yes/no form of Doersch et al., "Unsupervised visual representation
learning by context prediction", 2015, https://arxiv.org/abs/1505.05192, sec. 3. As there, four measures prevent
shortcuts: a gap between the patches and a jitter of each, against edges that continue from patch to patch; one mean and
contrast for all patches (from the authors' code), against brightness and gradients; and a random colour channel of each
patch, or a projection that removes green against magenta, against chromatic aberration, by which a lens reveals where
in the image a patch was.

Differs from the paper: both patches are pasted on one grey canvas, next to each other or one above the other, so that
one encoder pass on images of the usual size serves this pretext and all others. Wrong patches come from the same image;
those of another image would be recognised by their colours. A kept channel is shown in all channels, as a grey picture;
the paper fills the others with faint noise. No patch is reduced in resolution. At 64 pixels gaps are a few pixels wide,
so facing edges still tell a little: see `gap_ratio`.
"""
# B images, C channels, H W pixels, P patch side (rows and columns may differ)

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.device_transfer import constant
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape

GREY = 0.5  # the canvas, and the mean of a patch
SPREAD = 0.2  # standard deviation of a patch: the authors' code has 50 of 255
SMALLEST_SPREAD = 0.02  # of an original patch that is stretched to `SPREAD`: noise of flat patches stays faint
GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # of RGB; Doersch et al., sec. 3
SMALLEST_PATCH = 6  # pixels per side: smaller patches show nothing to recognise


@PRETEXTS.register("neighbour")
@dataclass(frozen=True, kw_only=True)
class Neighbour(Pretext):
    """Shows two patches from a grid of places and predicts whether the second is a neighbour of the first."""

    grid: int = 3
    """Places along each side of the image, at least 3."""
    gap_ratio: float = 0.25
    """Gap between patches as a share of a place's side, at least 0; with jitter it is about half a patch, as in the
    paper. Facing edges of small photographs still say something of the place; a larger gap hides more."""
    jitter_ratio: float = 0.1
    """Largest shift of a patch within its place, as a share of the place's side, at least 0."""
    colours: Literal["drop", "project", "keep"] = "drop"
    """Colours of a patch. drop: one random channel, as a grey picture; project: RGB without green against magenta; both
    with one mean and contrast for all patches. keep: unchanged colours, mean and contrast, as in earlier versions."""

    output: ClassVar[Literal["pixels", "logits"]] = "logits"
    class_names: ClassVar[tuple[str, ...]] = ("stranger", "neighbour")

    def __post_init__(self) -> None:
        if self.grid < 3:
            raise UserError(
                f"pretexts.neighbour.grid must be 3 or more, so that other places remain; found {self.grid}."
            )
        if not (self.gap_ratio >= 0 and self.jitter_ratio >= 0 and self.gap_ratio + self.jitter_ratio < 0.8):
            raise UserError(
                "pretexts.neighbour.gap_ratio and jitter_ratio must be 0 or more and leave a fifth of the place: their "
                f"sum must be below 0.8; found {self.gap_ratio} and {self.jitter_ratio}."
            )

    def check(self, shape: Shape) -> None:
        smallest = min(self._patch(shape))
        if smallest < SMALLEST_PATCH:
            raise UserError(
                f"pretexts.neighbour.grid {self.grid} leaves patches of {smallest} pixels in an image of {shape[1]} x "
                f"{shape[2]}; {SMALLEST_PATCH} are needed."
            )
        if self.colours == "project" and shape[0] != 3:
            raise UserError(
                f"pretexts.neighbour.colours project needs RGB images; these have {shape[0]} channels: "
                "give --pretexts.neighbour.colours drop."
            )

    def num_outputs(self, channels: int) -> int:
        return 2

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`true` (B,) int64 0 or 1, `down` (B,) bool, `first` and `second` (B, 2) int64 (row, column), `shift` (B, 4).

        `shift` in [-1, 1) is the jitter of both patches, rows then columns. `channel` (B, 2) int64 is the one that is
        kept of each patch.
        """
        true, down = keys.integers(2), keys.integers(2).bool()
        along, across = keys.integers(self.grid - 1), keys.integers(self.grid)
        first = torch.where(down[:, None], torch.stack((along, across), 1), torch.stack((across, along), 1))
        number = first[:, 0] * self.grid + first[:, 1]  # in raster order
        follower = number + torch.where(down, self.grid, 1)  # always later in raster order than the first
        stranger = keys.integers(self.grid**2 - 2)  # a place that is neither of the two
        stranger = stranger + (stranger >= number)
        stranger = stranger + (stranger >= follower)
        second = torch.where(true.bool(), follower, stranger)
        second = torch.stack((second // self.grid, second % self.grid), 1)
        shift, channel = keys.uniform(4, -1.0, 1.0), keys.integers(shape[0], 2)
        return {"true": true, "down": down, "first": first, "second": second, "shift": shift, "channel": channel}

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        shape = image_shape(images)
        canvas = torch.full_like(images, GREY)
        columns = torch.arange(2, device=images.device)
        for number, place in enumerate((draw["first"], draw["second"])):
            shift = draw["shift"][:, columns * 2 + number]  # (B, 2)
            patch = _cut(images, self._corner(place, shift, shape), self._patch(shape))
            patch = self._recoloured(patch, draw["channel"][:, number])
            canvas = _paste(canvas, patch, self._slot(number, draw["down"], shape))
        return canvas

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """(B,) int64: 1 for a neighbour, 0 otherwise."""
        return draw["true"]

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        return F.cross_entropy(prediction.float(), draw["true"], reduction="none")

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """Every pair of a place that has a right neighbour and any other place, without jitter."""
        device = images.device
        table, true = (part.to(device) for part in self._pairs())
        draw = {
            "true": true,
            "down": torch.zeros(len(table), dtype=torch.bool, device=device),
            "first": table[:, :2],
            "second": table[:, 2:],
            "shift": torch.zeros(len(table), 4, device=device),
            "channel": torch.full((len(table), 2), images.shape[1] // 2, device=device),  # green, of RGB
        }
        return images.expand(len(table), -1, -1, -1), draw

    def damages(self, shape: Shape) -> list[str]:
        """`r0c0-r0c1`: the places of the first and the second patch."""
        return [f"r{a}c{b}-r{c}c{d}" for a, b, c, d in self._pairs()[0].tolist()]

    def damage_shares(self, shape: Shape) -> Tensor:
        """Half for the neighbours and half for the other pairs, as in `sample`."""
        true = self._pairs()[1]
        counts = true.bincount(minlength=2)
        return 0.5 / counts[true]

    def _recoloured(self, patch: Tensor, channel: Tensor) -> Tensor:
        """Patches (B, C, p, q) with fewer colours and a common mean and contrast; `channel` (B,) is kept by `drop`."""
        if self.colours == "keep":
            return patch
        if self.colours == "drop":
            kept = patch[torch.arange(len(patch), device=patch.device), channel, None].expand_as(patch)
        else:
            axis = constant(GREEN_MAGENTA, patch.device, patch.dtype)
            along = torch.einsum("bcpq,c->bpq", patch, axis / axis.square().sum())
            kept = patch - along[:, None] * axis[:, None, None]
        centred = kept - kept.mean((2, 3), keepdim=True)
        spread = centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=SMALLEST_SPREAD)
        return (GREY + centred * (SPREAD / spread)).clamp(0, 1)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """((n, 4) places of both patches, (n,) int64 1 for true neighbours): what `enumerate` lists."""
        grid = self.grid
        firsts = [(r, c) for r in range(grid) for c in range(grid - 1)]
        pairs = [(r, c, p // grid, p % grid) for r, c in firsts for p in range(grid**2) if p != r * grid + c]
        table = torch.tensor(pairs)
        return table, ((table[:, 0] == table[:, 2]) & (table[:, 1] + 1 == table[:, 3])).long()

    def _patch(self, shape: Shape) -> tuple[int, int]:
        """(rows, columns) of a patch in pixels."""
        keep = 1 - self.gap_ratio - self.jitter_ratio
        return int(shape[1] / self.grid * keep), int(shape[2] / self.grid * keep)

    def _corner(self, place: Tensor, shift: Tensor, shape: Shape) -> Tensor:
        """(B, 2) int64: the upper left pixel of a patch that is centred in its place and moved by the jitter."""
        side = constant(shape[1:], place.device) / self.grid  # (2,)
        patch = constant(self._patch(shape), place.device)
        corner = (place + 0.5) * side - patch / 2 + shift * self.jitter_ratio * side / 2
        limit = constant(shape[1:], place.device) - patch
        return corner.round().long().clamp(min=0).minimum(limit)

    def _slot(self, number: int, down: Tensor, shape: Shape) -> Tensor:
        """(B, 2) int64: the upper left pixel of a patch on the canvas; the pair is centred, with a gap between."""
        patch = constant(self._patch(shape), down.device)
        size = constant(shape[1:], down.device)
        reach = (size / self.grid).long().maximum(patch + 1)  # from the first patch to the second
        axis = torch.stack((down, ~down), dim=1).long()  # (B, 2): the direction of the pair
        start = (size - patch - reach * axis) // 2
        return start + number * reach * axis


def _cut(images: Tensor, corner: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, C, H, W) and corners (B, 2) -> the patches (B, C, *patch)."""
    rows = corner[:, 0, None] + torch.arange(patch[0], device=images.device)  # (B, p)
    columns = corner[:, 1, None] + torch.arange(patch[1], device=images.device)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _paste(canvas: Tensor, patch: Tensor, corner: Tensor) -> Tensor:
    """Return a copy of a canvas (B, C, H, W) with patches (B, C, p, q) at corners (B, 2)."""
    rows = corner[:, 0, None] + torch.arange(patch.shape[2], device=canvas.device)
    columns = corner[:, 1, None] + torch.arange(patch.shape[3], device=canvas.device)
    batch = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    where = batch, rows[:, :, None], columns[:, None, :]
    return canvas.permute(0, 2, 3, 1).index_put(where, patch.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
