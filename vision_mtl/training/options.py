"""The options of training: the optimiser and its schedule, the use of the machine, and what is recorded.

Importing this file imports neither timm nor accelerate, so that `--help` and errors in options appear at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.memory import keep_freed_memory
from vision_mtl.training.recorders import Service, require_package

if TYPE_CHECKING:
    from accelerate import Accelerator

REFERENCE_BATCH = 256  # images a step that the learning rate is stated for, as in MAE and timm
TIMEOUT_SECONDS = 3600  # of a process that waits for the first one to validate, draw pictures or decode images


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimiser and its schedule. Training ends at `steps` or `max_seconds`, whichever comes first."""

    steps: int | None = None
    """Optimiser steps; with steps alone there is no time limit."""
    max_seconds: float | None = 150.0
    """Seconds of training, not counting preparation of the images, scoring and pictures."""
    batch_size: int = 64
    """Images a step, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches that a step's batch is split into, to save memory."""
    learning_rate: float = 4e-3
    """Peak learning rate for 256 images a step; the actual one is learning_rate * batch_size / 256."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay; norms, biases and tokens have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the gradient's mean and square, in [0, 1); 0.95: from MAE."""
    warmup_ratio: float = 0.1
    """Share of training, in [0, 1), in which the learning rate rises from 0; afterwards it falls to 0 as a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    layer_decay: float = 1.0
    """Learning rate of each backbone layer relative to the next deeper one, in (0, 1]; 1: the same for all."""
    non_finite: Literal["stop", "skip"] = "stop"
    """Reaction to a NaN or infinite loss or gradient. stop: stop the run and save the batch; skip: skip the step."""
    max_skipped: int = 3
    """Largest number of skipped steps in a row; one more stops the run."""
    ema_decay: float = 0.0
    """Decay of the averaged weights (EMA) that are scored and exported, in [0, 1), for example 0.999; 0: no EMA."""

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps is None or self.steps >= 1, "at least 1"),
            "max_seconds": (self.max_seconds is None or self.max_seconds > 0, "above 0"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "accumulate": (1 <= self.accumulate <= self.batch_size, "1 to batch_size"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "betas": (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)"),
            "warmup_ratio": (0 <= self.warmup_ratio < 1, "in [0, 1)"),
            "clip_norm": (self.clip_norm >= 0, "0 or more"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "max_skipped": (self.max_skipped >= 0, "0 or more"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"optim.{name} must be {rule}; found {getattr(self, name)}.")
        if self.steps is None and self.max_seconds is None:
            raise UserError("training needs an end: give --optim.steps, --optim.max_seconds, or both.")

    @property
    def peak_rate(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.learning_rate * self.batch_size / REFERENCE_BATCH

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of training done, in [0, 1], after `step` steps and `seconds` of training."""
        shares = [step / self.steps] if self.steps else []
        shares += [seconds / self.max_seconds] if self.max_seconds else []
        return min(max(shares), 1.0)

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of training: linear warm-up, then half a cosine to 0."""
        if progress < self.warmup_ratio:
            return self.peak_rate * progress / self.warmup_ratio
        rest = (progress - self.warmup_ratio) / (1 - self.warmup_ratio)
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * rest))


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The use of the machine. The defaults suit laptops and GPUs."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward pass. auto: bf16 where the hardware supports it, else fp32; always fp32 in the stages
    predict and explore."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Memory layout of images and weights. auto: on for convolutional backbones; on: channels last; off: contiguous."""
    compile: bool = False
    """Whether to compile the model with torch.compile; takes half a minute before the first step, so only long runs
    gain."""
    shard: bool = False
    """Whether each of several processes keeps a shard of the backbone's weights, gradients and optimiser state (FSDP);
    for backbones that do not fit one GPU's memory in training."""
    num_threads: int = 0
    """CPU threads of this process; 0: one for each core."""
    allocator: Literal["system", "keep"] = "system"
    """Use of freed CPU memory (Linux). system: return it to the system; keep: keep it for the next step, which is
    faster with large images, but the process stays at its peak memory."""

    def accelerator(self, device: str) -> Accelerator:
        """Return the accelerator for `device` (auto, cpu, cuda or mps); raise `UserError` if it is not available."""
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState

        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        if self.allocator == "keep":
            keep_freed_memory(True)
        present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if device != "auto" and not present[device]:
            here = ", ".join(name for name, there in present.items() if there)
            raise UserError(f"--device {device} is not available here. Available: {here}; --device auto chooses.")
        chosen = next(d for d in ("cuda", "mps", "cpu") if present[d]) if device == "auto" else device
        AcceleratorState._reset_state()  # else a second run of this process (in a study) could not change the precision
        # unused: heads without a row in this process's share of the batch get no gradient
        data_parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        process_group = InitProcessGroupKwargs(timeout=timedelta(seconds=TIMEOUT_SECONDS))
        return Accelerator(
            cpu=chosen == "cpu",
            mixed_precision="bf16" if self.half_precision(chosen) else "no",
            kwargs_handlers=[data_parallel, process_group],
        )

    def half_precision(self, device: str) -> bool:
        """Return whether the forward pass runs in bfloat16 on `device` (cpu, cuda or mps)."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if device == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        # a CPU without these instructions emulates bfloat16, slower than float32
        return device == "cpu" and torch.cpu._is_avx512_bf16_supported()

    def layout(self, backbone: nn.Module) -> torch.memory_format:
        """Return the memory format of the model and its images."""
        from vision_mtl.models.backbone import is_convolutional

        on = is_convolutional(backbone) if self.channels_last == "auto" else self.channels_last == "on"
        return torch.channels_last if on else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class Track:
    """Logging, checkpoints and trackers. The time that they take does not count as training."""

    log_every_steps: int = 10
    """Steps between lines of metrics.jsonl; each line holds the mean losses since the last."""
    num_probes: int = 0
    """Number of online probes (kNN on the tasks' validation images, and features for TensorBoard's projector), evenly
    spaced over the run; 0: none."""
    num_pictures: int = 1
    """Number of times that pictures of repairs are written for TensorBoard, evenly spaced over the run; 0: none."""
    checkpoint_every_seconds: float = 60.0
    """Seconds of training between checkpoints; one more is written at the end."""
    keep_checkpoints: int = 2
    """Number of checkpoints to keep, the newest ones."""
    tensorboard: bool = True
    """Whether to write TensorBoard events (scalars, pictures, features, config) in addition to metrics.jsonl."""
    tracker: Service = "none"
    """Tracking service that gets scalars and pictures as well: mlflow, wandb or trackio; its data stays in the run's
    folder unless the service's environment variables choose another place."""
    project: str = "vision_mtl"
    """Name of the service's project or experiment."""

    def __post_init__(self) -> None:
        require_package(self.tracker)
