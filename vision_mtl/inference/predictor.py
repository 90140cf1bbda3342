"""A trained model on its device: uint8 images in, every task's numbers out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.models.inference_model import InferenceModel
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.options import Runtime


def require_heads(model: SharedModel, where: str) -> None:
    """Raises `UserError` unless the model of run or checkpoint `where` has a head for some task."""
    if not model.task_specs:
        raise UserError(
            f"{where!r} has no head for any task, only a pretrained backbone. Train heads first: "
            f"--stage finetune --init_from {where}, then predict from that run."
        )


class Predictor:
    """The model on its device: uint8 images in, every task's numbers out."""

    def __init__(self, model: SharedModel, runtime: Runtime, device: str) -> None:
        accelerator = runtime.accelerator(device)
        self.device, self.autocast, self.layout = (
            accelerator.device,
            accelerator.autocast,
            runtime.layout(model.backbone),
        )
        self.model = InferenceModel(model).eval().to(self.device, memory_format=self.layout)
        if runtime.compile:
            self.model.compile()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(B, H, W, C) uint8 -> task -> float32 (B, K), (B, 1) or (B, K, H, W)."""
        return self.answer(torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device).float().div(255))

    def answer(self, images: Tensor) -> dict[str, np.ndarray]:
        """The same of images (B, C, H, W) float32 in [0, 1]."""
        with torch.inference_mode(), self.autocast():
            found = self.model(images.to(self.device).contiguous(memory_format=self.layout))
        return {task: numbers.float().cpu().numpy() for task, numbers in found.items()}
