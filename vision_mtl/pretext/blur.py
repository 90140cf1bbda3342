"""Deblurring: predict the sharp image from a blurred one, as the difference to it.

The task of a denoising autoencoder with Gaussian blur as the damage (Vincent et al., 2010, sec. 3; Bansal et al., "Cold
diffusion", 2022, https://arxiv.org/abs/2208.09392, sec. 4.1). Unlike downsampling, blur keeps the resolution and
weakens fine detail instead of removing it.
"""
# B images, C channels, H W pixels, S sigmas

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from vision_mtl.core.device_transfer import constant
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape

SHARPENING = 1.0  # the usual amount of an unsharp mask: adds the detail that a second blur removes


@PRETEXTS.register("blur")
@dataclass(frozen=True, kw_only=True)
class Blur(Pretext):
    """Blurs with a Gaussian; scored on all pixels by mean squared error."""

    sigma: float | list[float] = 2.0
    """Standard deviation of the Gaussian, in pixels, above 0; a list: one is drawn for each image."""

    classic: ClassVar[str] = "unsharp_masking"

    def __post_init__(self) -> None:
        if not self._sigmas or min(self._sigmas) <= 0:
            raise UserError(f"pretexts.blur.sigma must be above 0, or a list of such numbers; found {self.sigma!r}.")

    @property
    def _sigmas(self) -> list[float]:
        return [self.sigma] if isinstance(self.sigma, int | float) else list(self.sigma)

    @property
    def _kernel_size(self) -> int:
        return 2 * math.ceil(3 * max(self._sigmas)) + 1  # three standard deviations on each side

    def check(self, shape: Shape) -> None:
        if self._kernel_size // 2 >= min(shape[1:]):
            raise UserError(
                f"pretexts.blur.sigma {max(self._sigmas)} is too large for an image of {shape[1]} x {shape[2]} pixels."
            )

    def num_outputs(self, channels: int) -> int:
        return channels

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`sigma` (B,) float32."""
        return {"sigma": constant(tuple(self._sigmas), keys.device)[keys.integers(len(self._sigmas))]}

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        return self._blurred(images, draw)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        return images - self.corrupt(images, draw)

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        return (prediction.float() - self.target(images, draw)).square().mean((1, 2, 3))

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        return (damaged + prediction).clamp(0, 1)

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """Unsharp masking of the blurred image."""
        blurred = self.corrupt(images, draw)
        return (blurred + SHARPENING * (blurred - self._blurred(blurred, draw))).clamp(0, 1)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """The image blurred with every sigma."""
        sigmas = torch.tensor(self._sigmas, device=images.device)
        return images.expand(len(sigmas), -1, -1, -1), {"sigma": sigmas}

    def damages(self, shape: Shape) -> list[str]:
        """`sigma2`: the standard deviation."""
        return [f"sigma{sigma:g}" for sigma in self._sigmas]

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """The blurred image, unchanged and sharpened."""
        return {"blurred": self.corrupt(images, draw), "unsharp_masking": self.reference(images, draw)}

    def _blurred(self, images: Tensor, draw: Draw) -> Tensor:
        sigma = draw["sigma"].to(images.dtype)[:, None].expand(-1, 2)
        return gaussian_blur2d(images, self._kernel_size, sigma, border_type="reflect").clamp(0, 1)
