"""stable-pretraining's masked autoencoder, as its example writes it: what `peers.py speed` measures ours against.

    pip install stable-pretraining==0.1.8  # MIT; fits beside requirements.txt

https://github.com/galilai-group/stable-pretraining, `benchmarks/imagenet10/mae-vit-base.py`. Kept from there: the four
transforms, the optimiser and its schedule, the order of a step. Changed to what our own masked ViT does: vit_tiny with
patches of 8 at 64 pixels, a decoder of width 128, depth 1 and 4 heads, plain pixels as targets (theirs normalises each
patch, which costs a little more), and a DataLoader of 2 workers.

A step is what its `Module.training_step` computes: batch, forward, backward, optimiser, schedule, zeroed gradients. Not
counted, each to its advantage: Lightning's loop around it, logging, the probes' second pass of the encoder over all
tokens that the example makes in each step, and clipping of gradients, which ours and lightly's do.
"""
# B images

from __future__ import annotations

from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import stable_pretraining as spt
import timm
import torch
from PIL import Image
from stable_pretraining.data import transforms
from stable_pretraining.methods import MAE
from stable_pretraining.optim import LinearWarmupCosineAnnealing
from stable_pretraining.optim.utils import create_optimizer
from torch import Tensor

from benchmarks.lightly_methods import SIDE, WORKERS, endless
from vision_mtl.data.pool import Pool
from vision_mtl.training.options import Runtime

STEPS = 10**6  # of the schedule


class Pictures(spt.data.Dataset):
    """The pool's training images as PIL images, through the example's transforms; a sample is its dictionary."""

    def __init__(self, pool: Pool, indices: Tensor) -> None:
        super().__init__(
            transforms.Compose(
                transforms.RGB(),
                transforms.RandomResizedCrop((SIDE, SIDE), scale=(0.2, 1.0)),
                transforms.RandomHorizontalFlip(p=0.5),
                transforms.ToImage(**spt.data.static.ImageNet),
            )
        )
        self.pixels = pool.pixels(indices)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.process_sample({"image": Image.fromarray(self.pixels[number])})


class StableMAE:
    """Its masked autoencoder, step by step, in the machine's precision."""

    def __init__(self, pool: Pool, indices: Tensor, seed: int) -> None:
        spt.set(verbose="ERROR")  # it remarks on every network that it did not make itself
        torch.manual_seed(seed)
        encoder = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=SIDE, patch_size=8)
        self.model = MAE(
            encoder,
            decoder_embed_dim=128,
            decoder_depth=1,
            decoder_num_heads=4,
            mask_ratio=0.75,
            norm_pix_loss=False,
        ).train()
        self.batches = endless(Pictures(pool, indices), seed, WORKERS)
        self.half = Runtime().half_precision("cpu")
        words = {"type": "AdamW", "lr": 5e-4, "weight_decay": 0.05, "betas": (0.9, 0.95)}
        self.optimiser = create_optimizer(list(self.model.parameters(with_callbacks=False)), words)
        self.schedule = LinearWarmupCosineAnnealing(self.optimiser, STEPS, peak_step=40 / 600, end_lr=5e-5)

    def step(self) -> Tensor:
        """The loss, a scalar, of the weights before the step."""
        batch = next(self.batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.model(batch["image"]).loss
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()
