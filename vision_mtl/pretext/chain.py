"""Several damages on one image; the target is the undamaged image.

By default the image is grey, coarse and has one hidden cell, as in the composed corruptions of denoising autoencoders
(Vincent et al., 2010, sec. 3). Masks are applied first, whatever the given order, and hidden pixels are filled with a
smooth interpolation of the visible ones, so that a later resampling or blur cannot spread hidden content.
"""
# B images, C channels, H W pixels

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape
from vision_mtl.pretext.inpainting import inpaint
from vision_mtl.pretext.nested import build_repairs, check_nested, own_draw
from vision_mtl.pretext.smooth import fill_smoothly

OPTION = "pretexts.chain.steps"
DEFAULT_STEPS = ("grid_mask", "decolorise", "downsample")
# a hidden cell is interpolated before the reduction, so the small image is not known exactly
STEP_DEFAULTS = {"downsample": {"enlarged": "bicubic"}}


@PRETEXTS.register("chain")
@dataclass(frozen=True, kw_only=True)
class Chain(Pretext):
    """Applies several pretexts one after another; scored on all pixels by mean squared error."""

    steps: dict[str, Any] = field(default_factory=dict)
    """Mapping from a pretext to its options ({}: its defaults, but downsample with enlarged=bicubic), in order.
    Default: grid_mask, decolorise, downsample. At most one may hide pixels; it is applied first."""

    classic: ClassVar[str] = "inpainting"

    def __post_init__(self) -> None:
        if "chain" in self.steps:
            raise UserError("pretexts.chain.steps must not name chain itself.")
        for name, pretext in self._steps.items():
            if getattr(pretext, "fill", "mean") != "mean" or getattr(pretext, "instances_per_image", 1) != 1:
                raise UserError(
                    f"pretexts.chain.steps.{name}: fill and instances_per_image have no effect in a chain: leave "
                    "them out."
                )

    @cached_property
    def _steps(self) -> dict[str, Pretext]:
        """The steps, those that hide pixels first."""
        built = build_repairs(OPTION, self.steps or dict.fromkeys(DEFAULT_STEPS), STEP_DEFAULTS)
        return dict(sorted(built.items(), key=lambda step: not _hides(step[1])))

    @property
    def lists_damages(self) -> bool:
        return all(pretext.lists_damages for pretext in self._steps.values())

    def step(self, name: str) -> Pretext:
        """Return the chained pretext `name`; raises `KeyError` for an unknown one."""
        return self._steps[name]

    def check(self, shape: Shape) -> None:
        check_nested(OPTION, self._steps, shape)

    def num_outputs(self, channels: int) -> int:
        return channels

    def usable(self, images: Tensor) -> Tensor:
        """An image suits the chain if it suits any of its steps."""
        return torch.stack([pretext.usable(images) for pretext in self._steps.values()]).any(0)

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """The steps' draws, each under `NAME.key`."""
        draws = {name: pretext.sample(keys.fold(name), shape) for name, pretext in self._steps.items()}
        return {f"{name}.{key}": value for name, draw in draws.items() for key, value in draw.items()}

    def mask(self, draw: Draw, shape: Shape) -> Tensor | None:
        drawn = [p.mask(own_draw(draw, name), shape) for name, p in self._steps.items()]
        masks = [mask for mask in drawn if mask is not None]
        return torch.stack(masks).any(0) if masks else None

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        """The number of the step that hides pixels; None if that is unknown."""
        counts = [pretext.hidden_tokens(shape, grid) for pretext in self._steps.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        """Hidden pixels interpolated, then every other step in order."""
        return self._damaged(images, draw, fill_smoothly)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        return images - self.corrupt(images, draw)

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        value = (prediction.float() - self.target(images, draw)).square().mean((1, 2, 3))
        return torch.where(self.usable(images), value, 0.0)

    def scored(self, images: Tensor, draw: Draw) -> Tensor:
        """All pixels, since every pixel is damaged by some step."""
        return torch.ones_like(images[:, :1], dtype=torch.bool)

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        return (damaged + prediction).clamp(0, 1)

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """OpenCV's inpainting, damaged by the other steps."""
        return self._damaged(images, draw, inpaint)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """Every combination of the steps' damages."""
        shape = image_shape(images)
        each = {name: pretext.enumerate(images)[1] for name, pretext in self._steps.items()}
        counts = [_length(draw) for draw in each.values()]
        numbers = torch.cartesian_prod(*(torch.arange(n, device=images.device) for n in counts)).view(-1, len(counts))
        self.check(shape)
        draw = {
            f"{name}.{key}": value[numbers[:, column]]
            for column, (name, own) in enumerate(each.items())
            for key, value in own.items()
        }
        return images.expand(len(numbers), -1, -1, -1), draw

    def damages(self, shape: Shape) -> list[str]:
        """The steps' names joined: `4x4/r0c2 grey x4`."""
        return [" ".join(names) for names in itertools.product(*(p.damages(shape) for p in self._steps.values()))]

    def damage_shares(self, shape: Shape) -> Tensor:
        """The product of the steps' shares."""
        shares = torch.ones(1)
        for pretext in self._steps.values():
            shares = torch.outer(shares, pretext.damage_shares(shape)).flatten()
        return shares

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """The reference, named `inpainting`."""
        return {"inpainting": self.reference(images, draw)}

    def _damaged(self, images: Tensor, draw: Draw, fill: Any) -> Tensor:
        mask = self.mask(draw, image_shape(images))
        damaged = images if mask is None else fill(images, mask)
        for name, pretext in self._steps.items():
            if not _hides(pretext):
                damaged = pretext.corrupt(damaged, own_draw(draw, name))
        return damaged


def _hides(pretext: Pretext) -> bool:
    return type(pretext).mask is not Pretext.mask


def _length(draw: Draw) -> int:
    return next((len(value) for value in draw.values()), 1)
