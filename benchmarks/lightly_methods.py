"""lightly's SimCLR, VICReg, EMP-SSL and masked autoencoder: what `peers.py` measures ours against.

All are as its documentation writes them, except the sign in EMP-SSL (`peer_grid.py`). `contrast_views` and `mae` return
a trainer; a step of it takes a batch from lightly's transform and a DataLoader.
"""
# B images, D feature width

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import timm
import torch
from lightly.loss import EMPSSLLoss, NTXentLoss, VICRegLoss
from lightly.loss.emp_ssl_loss import invariance_loss, tcr_loss
from lightly.models import utils as lightly_utils
from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
from lightly.models.modules.heads import SimCLRProjectionHead, VICRegProjectionHead
from lightly.transforms import MAETransform
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.simclr_transform import SimCLRViewTransform
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.peer_grid import AS_IS, AS_IS_SETTING, BATCH, Arm, Setting
from vision_mtl.data.pool import Pool
from vision_mtl.training.optimiser import build_optimiser
from vision_mtl.training.options import Optim, Runtime

SIDE = 64
WORKERS = 2


class Pictures(Dataset):
    """The pool's training images as PIL images, through lightly's transform."""

    def __init__(self, pool: Pool, indices: Tensor, transform: Callable[[Any], Any]) -> None:
        self.pixels, self.transform = pool.pixels(indices), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.pixels[number]))


def endless(data: Dataset, seed: int, workers: int, batch_size: int = BATCH) -> Iterator[Any]:
    """Batches without end; by `workers` processes, or by this one (0)."""
    order = torch.Generator().manual_seed(seed)
    loader: DataLoader = DataLoader(
        data,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=order,
    )
    while True:
        yield from loader


class Projected(nn.Module):
    """A timm backbone under one of lightly's projection heads; outputs of unit length where `normalise`."""

    def __init__(self, head: nn.Module, normalise: bool) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet18", num_classes=0)
        self.head, self.normalise = head, normalise

    def forward(self, images: Tensor) -> Tensor:
        found = self.head(self.backbone(images))
        return F.normalize(found.float(), dim=1) if self.normalise else found


class MAE(nn.Module):
    """lightly's masked autoencoder over timm's vit_tiny."""

    def __init__(self) -> None:
        super().__init__()
        vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=SIDE, patch_size=8)
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.length = self.backbone.sequence_length
        self.decoder = MAEDecoderTIMM(
            num_patches=self.length - 1,
            patch_size=8,
            embed_dim=192,
            decoder_embed_dim=128,
            decoder_depth=1,
            decoder_num_heads=4,
        )

    def loss(self, images: Tensor) -> Tensor:
        keep, hidden = lightly_utils.random_token_mask((len(images), self.length), mask_ratio=0.75, device="cpu")
        encoded = self.backbone.encode(images, idx_keep=keep)
        embedded = self.decoder.embed(encoded)
        tokens = lightly_utils.repeat_token(self.decoder.mask_token, (len(images), self.length))
        tokens = lightly_utils.set_at_index(tokens, keep, embedded.type_as(tokens))
        predicted = self.decoder.predict(lightly_utils.get_at_index(self.decoder.decode(tokens), hidden))
        true = lightly_utils.get_at_index(lightly_utils.patchify(images, 8), hidden - 1)  # without the class token
        return (predicted.float() - true).square().mean()


class PeerTrainer:
    """One method of lightly's, step by step, in the machine's precision.

    `optim` sets AdamW as in our own training; without it, SGD as in lightly's examples. `data_seconds` is the processor
    time spent on batches by this process.
    """

    def __init__(
        self, model: nn.Module, loss: Callable[[Any], Tensor], batches: Iterator[Any], optim: Optim | None
    ) -> None:
        self.model, self.loss, self.batches = model, loss, batches
        self.half = Runtime().half_precision("cpu")
        self.optim = optim or Optim()
        self.data_seconds = 0.0
        if optim is not None:
            self.optimiser: torch.optim.Optimizer = build_optimiser(model, optim)
            self.peak = optim.peak_rate
        else:
            self.peak = 0.06  # of lightly's examples, for any batch
            self.optimiser = torch.optim.SGD(model.parameters(), lr=self.peak, momentum=0.9, weight_decay=5e-4)

    def step(self, done: float) -> None:
        """Take one step at the share `done` of training, with the warm-up and cosine of our own training."""
        rate = self.optim.rate(done) / self.optim.peak_rate * self.peak
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        start = time.process_time()
        batch = next(self.batches)
        self.data_seconds += time.process_time() - start
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.loss(batch)
        self.optimiser.zero_grad()
        loss.backward()
        if isinstance(self.optimiser, torch.optim.AdamW):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
        self.optimiser.step()


def contrast_views(pool: Pool, indices: Tensor, seed: int, arm: Arm, workers: int) -> PeerTrainer:
    """Return the trainer of an arm: by a setting of the table, or SimCLR with lightly's own defaults."""
    torch.manual_seed(seed)
    setting = AS_IS_SETTING if arm is AS_IS else arm.setting
    method = setting.method if setting else "simclr"
    model = Projected(_head(setting), method == "empssl").to(memory_format=torch.channels_last).train()
    criterion = EMPSSLLoss() if arm is AS_IS else _criterion(setting)
    if setting is None:
        views, view, optim = 2, SimCLRViewTransform(input_size=SIDE), None
    else:
        views = setting.views
        view = SimCLRViewTransform(
            input_size=setting.view_size, cj_strength=0.5, gaussian_blur=0.0, min_scale=setting.smallest_crop
        )
        optim = Optim(learning_rate=setting.learning_rate, batch_size=arm.batch_size)

    def loss(batch: list[Tensor]) -> Tensor:
        embedded = [model(images.to(memory_format=torch.channels_last)) for images in batch]
        with torch.autocast("cpu", enabled=False):  # lightly's log-determinant needs float32
            return criterion([found.float() for found in embedded])

    data = Pictures(pool, indices, MultiViewTransform([view] * views))
    return PeerTrainer(model, loss, endless(data, seed, workers, arm.batch_size), optim)


def _head(setting: Setting | None) -> nn.Module:
    if setting is None or setting.method == "simclr":
        return SimCLRProjectionHead(512, 512, setting.width if setting else 128)
    return VICRegProjectionHead(512, setting.width, setting.width)


def _criterion(setting: Setting | None) -> Callable[[list[Tensor]], Tensor]:
    """Return the loss of a list of views: the mean over pairs, or EMP-SSL's terms with the paper's signs."""
    if setting is not None and setting.method == "empssl":
        known = EMPSSLLoss()

        def empssl(views: list[Tensor]) -> Tensor:
            stacked = torch.stack(views)
            return known.inv_coef * invariance_loss(stacked) - tcr_loss(stacked, known.tcr_eps)

        return empssl
    temperature = 0.5 if setting is None else setting.temperature
    pair = VICRegLoss() if setting is not None and setting.method == "vicreg" else NTXentLoss(temperature=temperature)
    return lambda views: torch.stack([pair(a, b) for a, b in itertools.combinations(views, 2)]).mean()


def mae(pool: Pool, indices: Tensor, seed: int) -> PeerTrainer:
    """Return the trainer of the masked autoencoder."""
    torch.manual_seed(seed)
    model = MAE().train()
    data = Pictures(pool, indices, MAETransform(input_size=SIDE))
    return PeerTrainer(model, lambda batch: model.loss(batch[0]), endless(data, seed, WORKERS), Optim(batch_size=BATCH))
