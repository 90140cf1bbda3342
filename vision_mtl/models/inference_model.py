"""The model as its users call it: images in, every task's answer out, in one pass and without anything for training.

What is exported is exactly what `predict` runs, so both give the same answers.
"""
# B images, C channels, H W pixels, K classes, D feature width

from __future__ import annotations

from torch import Tensor, nn

from vision_mtl.models.shared import SharedModel

FEATURES = "features"  # what a model without tasks answers with


class InferenceModel(nn.Module):
    """The parts of a shared model that its tasks need; heads of pretexts, and a decoder nobody reads, are left out.

    The parts are the model's own, not copies.
    """

    def __init__(self, model: SharedModel) -> None:
        super().__init__()
        self.head_specs = dict(model.task_specs)
        self.tasks = tuple(self.head_specs)
        self.dense = tuple(name for name, answer in self.head_specs.items() if answer.is_dense)
        self.backbone = model.backbone
        self.decoder = model.decoder if self.dense else None
        self.heads = nn.ModuleList(model.task_head(name) for name in self.tasks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) in [0, 1] -> task -> float32 (B, K) or (B, K, H, W) calibrated probabilities, or (B, 1) numbers.

        Without tasks: `features` (B, D), the last map averaged over positions.
        """
        if not self.tasks:
            return {FEATURES: self.backbone.embed(images).float()}
        maps = self.backbone(images)
        picture = None if self.decoder is None else self.decoder(maps)[0]
        answers = {}
        for task, head in zip(self.tasks, self.heads, strict=True):
            answers[task] = head.probabilities(head(picture if task in self.dense else maps[-1]))
        return answers
