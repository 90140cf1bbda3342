"""The model for inference: images in, the predictions of all tasks out, in one pass.

Stage `predict` runs this model and export writes it, so both give the same predictions.
"""
# B images, C channels, H W pixels, K classes, D feature width

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vision_mtl.models.decoder import TaskHead
from vision_mtl.models.shared import SharedModel

FEATURES = "features"  # the output's name for a model without tasks


class InferenceModel(nn.Module):
    """The modules of a shared model that its tasks need, shared with it: no pretext heads, no unused decoder."""

    def __init__(self, model: SharedModel) -> None:
        super().__init__()
        self.head_specs = dict(model.task_specs)
        self.tasks = tuple(self.head_specs)
        self.dense = tuple(name for name, spec in self.head_specs.items() if spec.is_dense)
        self.backbone = model.backbone
        self.decoder = model.decoder if self.dense else None
        self.heads = nn.ModuleList(model.task_head(name) for name in self.tasks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) in [0, 1] -> task -> float32 (B, K) or (B, K, H, W) calibrated probabilities, or float64 (B, 1).

        A model without tasks returns `features` (B, D), the last map averaged over positions.
        """
        if not self.tasks:
            return {FEATURES: self.backbone.embed(images).float()}
        maps = self.backbone(images)
        readout = maps[-1] if self.decoder is None else self.decoder(maps)[0]  # of dense tasks
        predictions = {}
        for task, module in zip(self.tasks, self.heads, strict=True):
            head = cast(TaskHead, module)
            predictions[task] = head.probabilities(head(readout if task in self.dense else maps[-1]))
        return predictions
