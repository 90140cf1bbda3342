"""What a pretext task is. Chance and effect are apart: `sample` draws, everything else is a pure function of the draw.

A pretext is a frozen dataclass in a file of its own name, registered under that name; its fields are its options in
YAML and on the command line. To add one, copy `blur.py` (it repairs pixels), `rotation.py` (it answers a question) or
`contrast.py` (it compares images).

Three kinds of answer:

- `output = "pixels"`: the decoder's head gives (B, K, H, W), K = `num_outputs(C)`; `repair` turns it into an image;
- `output = "logits"`: a head on pooled features gives (B, K);
- `output = "embedding"`: a small network on pooled features gives (B, K), and `loss` compares the batch's rows with
  each other. The draw says which rows belong together; the loss is already in units of chance.

An all-zero prediction is the pretext's *chance answer*: heads start at zero, so a loss starts at its chance loss, and
training divides by that loss so that no pretext drowns another.
"""
# B images, C channels, H W pixels, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vision_mtl.core.registry import Registry
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape

Draw = dict[str, Tensor]  # each (B, ...): small, on the images' device
Shape = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True, kw_only=True)
class Pretext:
    """Base of every pretext. Images are float32 (B, C, H, W) in [0, 1] and are never changed in place."""

    weight: float = 1.0
    """Share of a batch's images that get this pretext, relative to the others'; 0 leaves it out."""

    output: ClassVar[Literal["pixels", "logits", "embedding"]] = "pixels"
    class_names: ClassVar[tuple[str, ...]] = ()  # what the K logits mean, for pictures; none for pixels
    meaning: ClassVar[tuple[str, ...]] = ()  # options that say what the prediction means: a trained head keeps them

    @property
    def repairs(self) -> bool:
        """Whether the answer is a picture; else it is a question's, judged by its loss and scored as one damage."""
        return self.output == "pixels"

    def check(self, shape: Shape) -> None:
        """Raise `UserError` if images of this shape cannot be used (not square, no colour, too small for the grid)."""

    def input_size(self, shape: Shape) -> tuple[int, int]:
        """(H, W) of what `corrupt` gives for images of `shape`; only questions and comparisons may change it."""
        return shape[1:]

    def num_outputs(self, channels: int) -> int:
        """K, for images of `channels` channels."""
        raise NotImplementedError

    def num_instances(self, shape: Shape) -> int:
        """How many damaged instances one image gives in one epoch; each has its own `keys.instance`."""
        return 1

    def usable(self, images: Tensor) -> Tensor:
        """(B,) bool: which images have something to learn (a grey image has no colour to predict)."""
        return torch.ones(len(images), dtype=torch.bool, device=images.device)

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """Draw the damage of B images. All randomness is here; row i depends on key i alone."""
        raise NotImplementedError

    def mask(self, draw: Draw, shape: Shape) -> Tensor | None:
        """(B, 1, H, W) bool, True = hidden, or None if the pretext hides no pixel."""
        return None

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        """How many tokens of a grid (h, w) on an image have all their pixels hidden, if any draw of `sample` hides as
        many; else None. Known beforehand, a GPU need not be asked."""
        return 0 if type(self).mask is Pretext.mask else None

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) -> (B, C, *input_size) in [0, 1]: what the encoder sees. Hidden pixels never reach it,
        NaN included."""
        raise NotImplementedError

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """What the prediction is compared with: (B, K, H, W), or (B,) int64 classes for logits."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        """(B,) float32, one value an image: the mean over scored pixels; 0 with zero gradient where not `usable`."""
        raise NotImplementedError

    def scored(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, 1, H, W) bool: the pixels that repair is judged on. Default: the hidden ones, or all where none are."""
        hidden = self.mask(draw, image_shape(images))
        return torch.ones_like(images[:, :1], dtype=torch.bool) if hidden is None else hidden

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the repaired image, from what was visible alone (`damaged` is `corrupt`'s output)."""
        raise NotImplementedError

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the best classic repair without learning, from what was visible alone."""
        raise NotImplementedError

    def picture(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W) in [0, 1]: the damaged image as a person should see it."""
        return self.corrupt(images, draw)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """Every distinct damage of one image (1, C, H, W): the image repeated, and the draw, both (n, ...)."""
        raise NotImplementedError

    def damages(self, shape: Shape) -> list[str]:
        """Names of the n damages that `enumerate` lists, in its order: short, distinct, the same in every run.

        What stands before a slash is the damage's scale: `4x4/r0c2` is a cell (row and column from 0) of scale `4x4`.
        """
        raise NotImplementedError

    def damage_shares(self, shape: Shape) -> Tensor:
        """(n,) of sum 1: how often each of `damages` is drawn when nothing is preferred. Default: all alike."""
        count = len(self.damages(shape))
        return torch.full((count,), 1 / count)

    def sample_damage(self, keys: Keys, images: Tensor, which: Tensor) -> Draw:
        """As `sample`, with the damage of image i fixed to number `which[i]` (B,) of those that `enumerate` lists."""
        table = self.enumerate(images[:1])[1]
        drawn = self.sample(keys, image_shape(images))
        return drawn | {key: value[which] for key, value in table.items()}

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Repairs without learning by name, each (B, C, H, W) in [0, 1] from what was visible alone."""
        return {"classic": self.reference(images, draw)}


PRETEXTS: Registry[type[Pretext]] = Registry("pretext", "vision_mtl.pretext")
