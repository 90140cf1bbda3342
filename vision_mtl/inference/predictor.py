"""Predict every task with a trained model on its device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import image_tensor
from vision_mtl.models.inference_model import InferenceModel
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.options import Runtime


def require_heads(model: SharedModel, where: str) -> None:
    """Raise `UserError` if the model of the run or checkpoint `where` has no head for a task."""
    if not model.task_specs:
        raise UserError(
            f"{where!r} has no head for any task, only a pretrained backbone. Train heads first: "
            f"--stage finetune --init_from {where}, then predict from that run."
        )


class Predictor:
    """Maps images to each task's numbers: (B, K) probabilities, (B, 1) values, or (B, K, H, W) for dense tasks.

    Precision `auto` is fp32 here, so that the command, Python and exported models agree on every machine.
    """

    def __init__(self, model: SharedModel, runtime: Runtime, device: str) -> None:
        if runtime.precision == "auto":
            runtime = replace(runtime, precision="fp32")
        accelerator = runtime.accelerator(device)
        self.device, self.autocast = accelerator.device, accelerator.autocast
        self.layout = runtime.layout(model.backbone)
        self.model = InferenceModel(model).eval()
        self.model.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]  # torch's stubs lack it
        if runtime.compile:
            self.model.compile()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the numbers of each task for images (B, H, W, C), in 8 bits or 16-bit levels.

        Probabilities are float32, values float64.
        """
        return self.predict(image_tensor(images, self.device))

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        """Return the numbers of each task for images (B, C, H, W) float32 in [0, 1], as `__call__` does."""
        with torch.inference_mode(), self.autocast():
            found = self.model(images.to(self.device).contiguous(memory_format=self.layout))
        return {task: numbers.cpu().numpy() for task, numbers in found.items()}
