"""The interface of a pretext task. `sample` makes every random draw; all other methods are pure functions of the draw.

A pretext is a frozen dataclass in a file of its own name, registered under that name; its fields are its options in
YAML and on the command line. To add one, copy `blur.py` (repairs pixels), `rotation.py` (classifies) or `contrast.py`
(compares images).

There are four kinds of output:

- `output = "pixels"`: the decoder's head gives (B, K, H, W), K = `num_outputs(C)`; `repair` turns it into an image;
- `output = "logits"`: a head on pooled features gives (B, K). This is a *classification pretext*;
- `output = "embedding"`: a small network on pooled features gives (B, K), and `loss` compares the rows of the batch.
  The draw tells which rows show the same image; the loss is already divided by its chance value.
- `output = "features"`: a head on the last map gives (B, K), or (B, K, h, w) with `head_kind = "feature_map"`. The
  targets are features of every image that are computed before training: `feature_request` asks for them, `bound`
  returns the pretext that has them, and `sample` puts each image's into the draw (`distil.py`).

The loss of an all-zero prediction is the pretext's *chance loss*. Heads start near zero, so a loss starts near its
chance loss; training divides by the chance loss, so that all pretexts have the same scale.
"""
# B images, C channels, H W pixels, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.registry import Registry
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape

Draw = dict[str, Tensor]  # each (B, ...): small, on the images' device
Shape = tuple[int, int, int]  # (C, H, W)
HeadKind = Literal["pixels", "logits", "embedding", "features", "feature_map"]


@dataclass(frozen=True)
class FeatureRequest:
    """The features of every image that a pretext needs as targets: what `Pretext.bound` gets.

    `teacher` is a name, a run, or a module; `size` the side in pixels of the images that it sees; `kind` is `pooled` or
    `map`; `width` K the number of whitened features; `mirrored`: those of each mirrored image are needed too.
    """

    teacher: Any
    size: int
    kind: Literal["pooled", "map"]
    width: int
    mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Pretext:
    """Base of every pretext. Images are float32 (B, C, H, W) in [0, 1] and are never changed in place."""

    weight: float = 1.0
    """Share of a batch's images that get this pretext, relative to the weights of the others; 0 turns it off."""

    registered_name: ClassVar[str]
    output: ClassVar[Literal["pixels", "logits", "embedding", "features"]] = "pixels"
    class_names: ClassVar[tuple[str, ...]] = ()  # of the K logits, for pictures; empty for other outputs
    meaning: ClassVar[tuple[str, ...]] = ()  # options that define what the prediction means: fixed for a trained head
    classic: ClassVar[str] = "classic"  # the name of `reference` among `rules`

    @property
    def repairs(self) -> bool:
        """True if the prediction is an image. Other pretexts are scored by their loss, all damages together."""
        return self.output == "pixels"

    @property
    def head_kind(self) -> HeadKind:
        """The kind of the model's head; it differs from `output` for features of each position."""
        return self.output

    @property
    def feature_request(self) -> FeatureRequest | None:
        """The features of every image that must be computed before training; None: nothing."""
        return None

    def bound(self, features: np.ndarray) -> Self:
        """Return a copy with the requested features (N, M, K) or (N, M, K, h, w) of the pool's N images.

        M is 2 with those of the mirrored images, else 1; zero features are no target.
        """
        raise NotImplementedError

    @property
    def lists_damages(self) -> bool:
        """True if `enumerate` has every damage that `sample` draws; otherwise drawn damages are scored together."""
        return True

    def check(self, shape: Shape) -> None:
        """Raise `UserError` if images of this shape cannot be used (not square, no colour, too small for the grid)."""

    def input_size(self, shape: Shape) -> tuple[int, int]:
        """(H, W) of what `corrupt` returns for images of `shape`; pretexts that repair pixels must keep it."""
        return shape[1:]

    def num_outputs(self, channels: int) -> int:
        """K, for images of `channels` channels."""
        raise NotImplementedError

    def num_instances(self, shape: Shape) -> int:
        """Number of damaged instances of one image in one epoch; each has its own `keys.instance`."""
        return 1

    def usable(self, images: Tensor) -> Tensor:
        """(B,) bool: True for images that have something to learn (a grey image has no colour to predict)."""
        return torch.ones(len(images), dtype=torch.bool, device=images.device)

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """Draw the damage of B images. Row i depends only on key i."""
        raise NotImplementedError

    def mask(self, draw: Draw, shape: Shape) -> Tensor | None:
        """(B, 1, H, W) bool, True = hidden, or None if the pretext hides no pixel."""
        return None

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        """Number of fully hidden tokens of a grid (h, w); None if it is not the same for every draw of `sample`.

        A known number spares a GPU synchronisation.
        """
        return 0 if type(self).mask is Pretext.mask else None

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) -> (B, C, *input_size) in [0, 1]: the encoder's input, without any hidden pixel (or NaN)."""
        raise NotImplementedError

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """The target of the prediction: (B, K, H, W), or (B,) int64 classes for logits."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        """(B,) float32, the mean over the scored pixels of each image; 0 with zero gradient where not `usable`."""
        raise NotImplementedError

    def scored(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, 1, H, W) bool: the pixels in the loss and the skill. Default: the hidden ones; without a mask, all."""
        hidden = self.mask(draw, image_shape(images))
        return torch.ones_like(images[:, :1], dtype=torch.bool) if hidden is None else hidden

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the repaired image, from visible pixels only; `damaged` comes from `corrupt`."""
        raise NotImplementedError

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the best classic repair without learning, from visible pixels only."""
        raise NotImplementedError

    def picture(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the damaged image as a person should see it."""
        return self.corrupt(images, draw)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """Every distinct damage of one image (1, C, H, W): the repeated image and the draw, both (n, ...)."""
        raise NotImplementedError

    def damages(self, shape: Shape) -> list[str]:
        """Names of the n damages of `enumerate`, in its order: short, distinct, the same in every run.

        The text before a slash is the damage's scale: `4x4/r0c2` is a cell (row and column from 0) of scale `4x4`.
        """
        raise NotImplementedError

    def damage_shares(self, shape: Shape) -> Tensor:
        """(n,) of sum 1: the probability of each of `damages` without a preference. Default: uniform."""
        count = len(self.damages(shape))
        return torch.full((count,), 1 / count)

    def sample_damage(self, keys: Keys, images: Tensor, which: Tensor) -> Draw:
        """As `sample`, with the damage of image i fixed to number `which[i]` (B,) of those from `enumerate`."""
        table = self.enumerate(images[:1])[1]
        drawn = self.sample(keys, image_shape(images))
        return drawn | {key: value[which] for key, value in table.items()}

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Name -> repair without learning, each (B, C, H, W) in [0, 1] from visible pixels only."""
        return {self.classic: self.reference(images, draw)}


PRETEXTS: Registry[type[Pretext]] = Registry("pretext", "vision_mtl.pretext")
