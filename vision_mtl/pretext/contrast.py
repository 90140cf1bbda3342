"""Instance discrimination: learn embeddings that tell which damaged views show the same image.

Chen et al., "A simple framework for contrastive learning of visual representations" (SimCLR), 2020,
https://arxiv.org/abs/2002.05709, sec. 2: a random crop of random aspect ratio, a horizontal flip, colour jitter and
grey; a loss that compares the embeddings of views, by default theirs (`view_losses.py` has all three). Several small
views of an image teach more in the same time than two large ones (Caron et al., "Unsupervised learning of visual
features by contrasting cluster assignments", 2020, https://arxiv.org/abs/2006.09882, sec. 3.2, multi-crop). With
`damage`, some views have a hidden cell, no colours or little detail, as the pretexts that repair have them; hidden
pixels are filled.

Differs from the papers: the loss is divided by its chance value, so that its scale depends on neither the loss nor the
batch size; all views have one size; a stretched crop may reach beyond the image, whose border is repeated there;
saturation and hue are one linear map of the colours, hue a rotation of the chroma plane; there is no blur, which at
small sizes only hides detail; in a mixture, in micro-batches and with several processes, a view is compared within its
own part of the batch only.

What is another image: an image is one item of a source. Views of one item belong together, also if a batch holds the
item twice; views of any two items are distinguished, whatever they show. So copies of a picture under two names, near
copies, and crops of one photograph that are items of their own count as different images, although they may show the
same pixels: a loss near 0 is then out of reach, and what such items share is learned less. Remove copies from the
source, or give photographs instead of crops: `views` takes the crops.
"""
# B views, C channels, H W pixels, K embedding width

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.device_transfer import constant
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.colour import LUMA
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape
from vision_mtl.pretext.damages import WHICH, Damages
from vision_mtl.pretext.view_losses import coding_rate, nt_xent, vicreg

HUE = 0.1  # largest rotation at strength 0.5, as a share of a full turn: the paper's ratio of hue to brightness


@PRETEXTS.register("contrast")
@dataclass(frozen=True, kw_only=True)
class Contrast(Pretext):
    """Embeds views so that those of one image are nearest to each other; a step needs two images or more."""

    criterion: Literal["nt_xent", "vicreg", "coding_rate"] = "nt_xent"
    """The loss. nt_xent: tell the views of an image from all others (SimCLR); vicreg: variance, invariance and
    covariance; coding_rate: the total coding rate and the cosine to the mean of an image's views (EMP-SSL)."""
    temperature: float = 0.2
    """Divisor of cosine similarities in nt_xent, above 0; a smaller one gives the hardest negatives more weight."""
    views: int = 2
    """Views of each image, at least 2."""
    view_size: int = 0
    """Side of a view in pixels, at most the image's; 0: the image's own size. Smaller views are faster."""
    smallest_crop: float = 0.3
    """Smallest share of the image's area in a view, in (0, 1]."""
    stretch: float = 1.78
    """Largest ratio between the sides of a crop, at least 1; 1: square. A stretched crop may reach beyond the image,
    whose border is repeated there."""
    colour: float = 0.5
    """Strength of the jitter of brightness, contrast, saturation and hue, in [0, 1]; 0: none."""
    grey: float = 0.2
    """Share of views without colour, in [0, 1]."""
    mirror: bool = True
    """true: mirror half of the views; false: none, for images where left and right have a meaning."""
    width: int = 128
    """Length of an embedding, at least 2."""
    damage: dict[str, Any] = field(default_factory=dict)
    """Mapping from a damage of views to its options: none, or any pretext that repairs pixels; of several, one is drawn
    for each view by their weights. Default: none."""

    output: ClassVar[Literal["pixels", "logits", "embedding"]] = "embedding"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"pretexts.contrast.temperature must be above 0; found {self.temperature}.")
        if self.views < 2:
            raise UserError(
                f"pretexts.contrast.views must be 2 or more: one has no other to agree with; found {self.views}."
            )
        if self.view_size < 0:
            raise UserError(f"pretexts.contrast.view_size must be 0 (the image's own) or more; found {self.view_size}.")
        if not 0 < self.smallest_crop <= 1:
            raise UserError(f"pretexts.contrast.smallest_crop must lie in (0, 1]; found {self.smallest_crop}.")
        if not self.stretch >= 1:
            raise UserError(f"pretexts.contrast.stretch must be 1 or more; found {self.stretch}.")
        for name in ("colour", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"pretexts.contrast.{name} must lie in [0, 1]; found {getattr(self, name)}.")
        if self.width < 2:
            raise UserError(f"pretexts.contrast.width must be 2 or more; found {self.width}.")
        self._damage  # noqa: B018  # checks the options of the damages

    def check(self, shape: Shape) -> None:
        if self.view_size > min(shape[1:]):
            height, width = shape[1:]
            raise UserError(
                f"pretexts.contrast.view_size must be at most the image's {height} x {width} pixels; found "
                f"{self.view_size}."
            )
        self._damage.check((shape[0], *self.input_size(shape)))

    @cached_property
    def _damage(self) -> Damages:
        return Damages(self.damage, "pretexts.contrast.damage")

    def input_size(self, shape: Shape) -> tuple[int, int]:
        return (self.view_size, self.view_size) if self.view_size else shape[1:]

    def num_outputs(self, channels: int) -> int:
        return self.width

    def num_instances(self, shape: Shape) -> int:
        return self.views

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`image` and `view` (B,) int64, `window` (B, 4), `mirrored` (B,) bool, `light` (B, 4).

        With a damage: `damage` (B,) int64, its number, and the draw of each under `NAME.key`.
        `image` is equal for views of one image, and `view` in [0, views) numbers them.

        `window` is the crop's height and width as shares of the image's, and the offset of its centre from the
        image's, down and across, in half images. `light` holds the factors of brightness, contrast and saturation, and
        the rotation of the hue in radians.
        """
        side = keys.uniform(low=self.smallest_crop).sqrt()
        offset = keys.uniform(2, -1.0, 1.0)
        wider = (keys.fold("stretch").uniform(low=-1.0) * (math.log(self.stretch) / 2)).exp()
        window = torch.cat(((side / wider)[:, None], (side * wider)[:, None], offset * (1 - side)[:, None]), dim=1)
        mirrored = keys.integers(2).bool() & self.mirror
        factors = 1 + self.colour * keys.uniform(3, -1.0, 1.0)
        turn = keys.uniform(low=-1.0) * (2 * math.pi * HUE * 2 * self.colour)
        coloured = (keys.uniform() >= self.grey).float()
        light = torch.cat((factors[:, :2], (factors[:, 2] * coloured)[:, None], turn[:, None]), dim=1)
        view = torch.zeros_like(keys.index) if keys.instance is None else keys.instance
        draw = {"image": keys.index, "view": view, "window": window, "mirrored": mirrored, "light": light}
        size = (shape[0], *self.input_size(shape))
        return draw | (self._damage.sample(keys.fold("damage"), size) if self.damage else {})

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        views = self._coloured(self._cropped(images, draw), draw["light"])
        return self._damage.apply(views, draw) if WHICH in draw else views

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """(B,) int64, equal for views of one image."""
        return draw["image"]

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        """The loss `criterion` divided by its chance value; 0 where nothing can be compared."""
        image, embeddings = draw["image"], prediction.float()
        if len(image) <= self.views:  # no other image
            return embeddings.sum(1) * 0.0
        with torch.autocast(embeddings.device.type, enabled=False):  # matrix products in float32
            if self.criterion == "nt_xent":
                return nt_xent(embeddings, image, self.views, self.temperature)
            statistic = vicreg if self.criterion == "vicreg" else coding_rate
            return statistic(embeddings, image, draw["view"], self.views)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """One view that represents all: the central half of each side, undamaged and with unchanged colours."""
        device = images.device
        draw = {
            "image": torch.zeros(1, dtype=torch.int64, device=device),
            "view": torch.zeros(1, dtype=torch.int64, device=device),
            "window": torch.tensor([[0.5, 0.5, 0.0, 0.0]], device=device),
            "mirrored": torch.zeros(1, dtype=torch.bool, device=device),
            "light": torch.tensor([[1.0, 1.0, 1.0, 0.0]], device=device),
        }
        return images[:1], draw

    def damages(self, shape: Shape) -> list[str]:
        """`views`: the only name, for views of any kind."""
        return ["views"]

    def _cropped(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, *input_size): each view's window, bilinear; beyond the image its border is repeated."""
        size = self.input_size(image_shape(images))
        height, width, down, across = draw["window"].unbind(1)
        width = torch.where(draw["mirrored"], -width, width)
        zero = torch.zeros_like(width)
        rows = [torch.stack(row, dim=1) for row in ((width, zero, across), (zero, height, down))]  # (B, 3) each
        grid = F.affine_grid(torch.stack(rows, dim=1).to(images.dtype), [*images.shape[:2], *size], align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _coloured(self, views: Tensor, light: Tensor) -> Tensor:
        """Views with changed brightness, contrast about the mean and, for RGB, saturation and hue."""
        brightness, contrast, saturation, turn = light.to(views.dtype)[:, :, None, None].unbind(1)  # (B, 1, 1) each
        views = views * brightness[:, None]
        if views.shape[1] == 3:
            views = torch.einsum("bdc,bchw->bdhw", _colour_map(saturation, turn), views)
        mean = views.mean((1, 2, 3), keepdim=True)
        return (mean + (views - mean) * contrast[:, None]).clamp(0, 1)


def _colour_map(saturation: Tensor, turn: Tensor) -> Tensor:
    """(B, 3, 3) maps of RGB that keep luma, scale chroma by `saturation` and rotate it by `turn` radians, (B, 1, 1)."""
    # the YIQ space of NTSC television (SMPTE 170M): luma and two orthogonal axes of chroma
    to_yiq = constant((LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)), turn.device, turn.dtype)
    cosine, sine = (saturation * wave(turn) for wave in (torch.cos, torch.sin))
    one, zero = torch.ones_like(turn), torch.zeros_like(turn)
    rows = [torch.cat(row, 2) for row in ((one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine))]
    return torch.linalg.inv(to_yiq) @ torch.cat(rows, 1) @ to_yiq
