"""Feature prediction: predict a frozen teacher's features of the undamaged image from a damaged one.

Romero et al., "FitNets: hints for thin deep nets", 2015, https://arxiv.org/abs/1412.6550, for features as targets; Wei
et al., "Masked feature prediction for self-supervised visual pre-training" (MaskFeat), 2022,
https://arxiv.org/abs/2112.09133, for features of the undamaged image as targets of a damaged one.

Differs from the papers: features are centred and whitened on training images, so that no few directions rule the
cosine; they are computed once for each image and its mirror image, because no damage moves a pixel, so the teacher
costs nothing during training.
"""
# B images, C channels, H W pixels, K features, h w positions, N images of the pool, M 1, or 2 with mirror images

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.device_transfer import send
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS, Draw, FeatureRequest, HeadKind, Pretext, Shape
from vision_mtl.pretext.damages import Damages

SMALLEST_NORM = 1e-3  # of a vector in the cosine: gradients at zero stay finite


@PRETEXTS.register("distil")
@dataclass(frozen=True, kw_only=True)
class Distil(Pretext):
    """Predicts the whitened features that a frozen teacher has of the undamaged image; scored by 1 - cosine."""

    teacher: str = "tf_efficientnet_lite0"
    """Network whose features are predicted. The name of a timm architecture, with published weights: from an installed
    package (tf_efficientnet_lite0), from the folder of local-dir:FOLDER, or downloaded; or a run or checkpoint."""
    teacher_size: int = 128
    """Side in pixels to which images are resized for the teacher; a run has its own size."""
    features: Literal["pooled", "map"] = "pooled"
    """Predicted features. pooled: one vector for the image; map: one for each position of the teacher's last map."""
    width: int = 256
    """Number of predicted features: the first principal components of the teacher's, of equal variance."""
    mirror: bool = True
    """true: mirror half of the images, and predict the features of the mirrored image; false: none, for images where
    left and right have a meaning."""
    damage: dict[str, Any] = field(default_factory=dict)
    """Mapping from a damage to its options: none, or any pretext that repairs pixels; of several, one is drawn for each
    image by their weights. Default: none."""

    output: ClassVar[Literal["features"]] = "features"
    meaning: ClassVar[tuple[str, ...]] = ("teacher", "teacher_size", "features", "width")

    def __post_init__(self) -> None:
        for name, smallest in (("teacher_size", 1), ("width", 2)):
            if getattr(self, name) < smallest:
                raise UserError(f"pretexts.distil.{name} must be {smallest} or more; found {getattr(self, name)}.")
        if not self.teacher:
            raise UserError("pretexts.distil.teacher must name a network or a run; found an empty text.")
        self._damages  # noqa: B018  # checks the options of the damages

    @cached_property
    def _damages(self) -> Damages:
        return Damages(self.damage, "pretexts.distil.damage")

    def taught_by(self, module: nn.Module, name: str = "") -> Self:
        """Return a copy whose teacher is a module: images (B, C, H, W) in [0, 1] of side `teacher_size` -> features.

        The features are (B, D), or (B, D, h, w) with features=map. `name` stands for the module in results. Its
        features are computed anew for each training, and never cached on disk.
        """
        found = replace(self, teacher=f"module {name or type(module).__name__}")
        found.__dict__["_module"] = module
        return found

    @property
    def head_kind(self) -> HeadKind:
        return "features" if self.features == "pooled" else "feature_map"

    @property
    def feature_request(self) -> FeatureRequest:
        teacher = self.__dict__.get("_module", self.teacher)
        return FeatureRequest(teacher, self.teacher_size, self.features, self.width, self.mirror)

    def bound(self, features: np.ndarray) -> Self:
        found = copy.copy(self)
        found.__dict__["_targets"] = features
        return found

    def check(self, shape: Shape) -> None:
        self._damages.check(shape)

    def num_outputs(self, channels: int) -> int:
        return self.width

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`features` (B, K) or (B, K, h, w), the targets; `mirrored` (B,) bool; the draw of the damages.

        Raises `UserError` for a pretext without features.
        """
        mirrored = keys.integers(2).bool() & self.mirror
        damage = self._damages.sample(keys.fold("damage"), shape)
        return {"features": self._look_up(keys.index, mirrored), "mirrored": mirrored, **damage}

    def mask(self, draw: Draw, shape: Shape) -> Tensor | None:
        """The hidden pixels. None for a map, so that hidden positions are encoded too and have a prediction."""
        return self._damages.mask(draw, shape) if self.features == "pooled" else None

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        return self._damages.hidden_tokens(shape, grid) if self.features == "pooled" else 0

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        return self._damages.apply(_mirrored(images, draw), draw)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """The teacher's features: (B, K) or (B, K, h, w)."""
        return draw["features"]

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        """1 - cosine of prediction and target, the mean over positions; 1 for an all-zero prediction."""
        target, prediction = draw["features"], prediction.float()
        if self.features == "map":
            prediction = prediction if prediction.ndim == 4 else prediction[:, :, None, None]
            target = _on_grid(target, (prediction.shape[2], prediction.shape[3]))
        cosine = F.cosine_similarity(prediction, target, dim=1, eps=SMALLEST_NORM)
        return (1 - cosine).flatten(1).mean(1) if cosine.ndim > 1 else 1 - cosine

    def picture(self, images: Tensor, draw: Draw) -> Tensor:
        return self._damages.apply(_mirrored(images, draw), draw, as_seen=True)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """One draw that represents all."""
        index = torch.zeros(1, dtype=torch.int64, device=images.device)
        return images[:1], self.sample(Keys(0, 0, index), (images.shape[1], images.shape[2], images.shape[3]))

    def damages(self, shape: Shape) -> list[str]:
        """`features`: the only name, for images damaged in any way."""
        return ["features"]

    def _look_up(self, index: Tensor, mirrored: Tensor) -> Tensor:
        """The features of the pool's images `index` (B,), or of their mirror images."""
        targets: np.ndarray | None = self.__dict__.get("_targets")
        if targets is None:
            raise UserError(
                "pretext distil has no targets here: its teacher's features are computed for the images of a run "
                "(--stage pretrain, joint, discover or reconstruct; vm.Trainer in Python), not for other images."
            )
        rows = targets[index.cpu().numpy(), mirrored.long().cpu().numpy()]
        return send(torch.from_numpy(rows.astype(np.float32)), index.device)


def _mirrored(images: Tensor, draw: Draw) -> Tensor:
    return torch.where(draw["mirrored"][:, None, None, None], images.flip(3), images)


def _on_grid(features: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *size): averaged over areas onto a coarser grid, else interpolated."""
    if tuple(features.shape[2:]) == size:
        return features
    if all(own >= wanted for own, wanted in zip(features.shape[2:], size, strict=True)):
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
