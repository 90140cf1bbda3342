"""Decolorisation: predict the colours from the grey image.

Larsson et al., "Colorization as a proxy task for visual understanding", 2017, https://arxiv.org/abs/1703.04044; the
classification over quantised colours is Zhang et al., "Colorful image colorization", 2016,
https://arxiv.org/abs/1603.08511, sec. 2.2. Differs from the papers: by default chroma is regressed with the Huber loss,
which fits our skill, a squared error on pixels; bins are assigned hard, and their prior is analytic (`colour.py`).

There are 261 bins, the authors use 313. Ours are all bins that hold a colour of the sRGB cube, so a hard assignment has
no use for another. The authors' list goes about one bin beyond the gamut, for their assignment to the five nearest
bins: 309 corners belong to a square of the grid with some sRGB colour.

An all-zero prediction of `answer=classify` is not grey but a tint, a = 16 and b = 6: it is uniform over the bins, and
the gamut reaches further towards red and yellow than towards green and blue. Its loss is the usual chance loss of a
classification. With `answer=regress` an all-zero prediction is grey.
"""
# B images, H W pixels, Q colour bins

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.device_transfer import table
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext import colour
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape

# mean of (largest - smallest channel) above which an image has colour: JPEG noise in grey images stays below
COLOURED = 0.01
LUMA_STEPS = 12  # damped steps to the lightness that gives the input's luma; undamped ones overshoot near the gamut


@PRETEXTS.register("decolorise")
@dataclass(frozen=True, kw_only=True)
class Decolorise(Pretext):
    """Shows the grey image and predicts a and b of Lab at every pixel. Images must be RGB."""

    input: Literal["luma", "lab"] = "luma"
    """Grey image shown. luma: Rec. 601 luma; lab: the grey of equal Lab lightness."""
    answer: Literal["regress", "classify"] = "regress"
    """Prediction at each pixel. regress: a and b, by the Huber loss; classify: their colour bin, by cross-entropy."""
    delta: float = 1.0
    """Error above which the Huber loss is linear, in units of 110 ab, above 0; 1 is quadratic nearly everywhere."""

    meaning: ClassVar[tuple[str, ...]] = ("answer",)
    classic: ClassVar[str] = "grey"

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise UserError(f"pretexts.decolorise.delta must be above 0; found {self.delta}.")

    def check(self, shape: Shape) -> None:
        if shape[0] != 3:
            raise UserError(
                f"decolorise needs RGB images; these have {shape[0]} channels: "
                "leave it out with --pretexts.decolorise.weight 0."
            )

    def num_outputs(self, channels: int) -> int:
        return 2 if self.answer == "regress" else len(colour.bin_centres())

    def usable(self, images: Tensor) -> Tensor:
        return (images.amax(1) - images.amin(1)).mean((1, 2)) > COLOURED

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """An empty draw: nothing is random."""
        return {}

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        if self.input == "lab":
            return colour.grey_of_lightness(colour.lightness(images)).clamp(0, 1)
        return colour.luma(images).expand_as(images)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, 2, H, W) in units of 110 ab, or (B, H, W) int64 bins."""
        return colour.chroma_ab(images) if self.answer == "regress" else colour.nearest_bin(images)

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        target, prediction = self.target(images, draw), prediction.float()
        if self.answer == "regress":
            value = F.huber_loss(prediction, target, delta=self.delta, reduction="none").mean((1, 2, 3))
        else:
            weights = table(colour.bin_weights, (), prediction.device, prediction.dtype)
            value = F.cross_entropy(prediction, target, weight=weights, reduction="none").mean((1, 2))
        return torch.where(self.usable(images), value, 0.0)

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        """The predicted colours at the input's lightness; with input=luma, at the input's luma."""
        ab = prediction.float() if self.answer == "regress" else colour.annealed_mean(prediction.float())
        if not ab.any():  # no colours anywhere: the grey input itself
            return damaged.float().clamp(0, 1)
        light = colour.lightness(damaged.float())
        if self.input == "lab":
            return colour.with_chroma(light, ab)
        for _ in range(LUMA_STEPS):
            light = light + 50 * (damaged[:, :1] - colour.luma(colour.with_chroma(light, ab)))
        return colour.with_chroma(light.clamp(0, 100), ab)

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """The grey image itself."""
        return self.corrupt(images, draw)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        return images, {}

    def damages(self, shape: Shape) -> list[str]:
        return ["grey"]

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """The grey image itself."""
        return {"grey": self.reference(images, draw)}
