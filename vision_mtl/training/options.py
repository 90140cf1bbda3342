"""The options of training: how a model is fitted, how the machine is used, what is recorded.

Imports neither timm nor accelerate at its top, so that `--help` and mistakes are answered at once.
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

if TYPE_CHECKING:
    from accelerate import Accelerator

REFERENCE_BATCH = 256  # the learning rate is stated for this many images a step, as MAE and timm state it
# how long a process waits for the others: validation, pictures and a first decoding are the work of one
PATIENCE_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How a model is fitted. Training ends at `steps` or `max_seconds`, whichever comes first."""

    steps: int | None = None
    """Optimiser steps; given alone, there is no limit of time."""
    max_seconds: float | None = 150.0
    """Seconds of training, without the store, scoring and pictures."""
    batch_size: int = 64
    """Images a step, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts that a step's batch is computed in, to save memory."""
    learning_rate: float = 4e-3
    """For 256 images a step; the rate used is learning_rate * batch_size / 256."""
    weight_decay: float = 0.05
    """AdamW's decoupled decay; none on norms, biases and tokens."""
    betas: tuple[float, float] = (
        0.9,
        0.95,
    )
    """AdamW's decay of the averaged gradient and square, in [0, 1); 0.95: from MAE."""
    warmup_ratio: float = 0.1
    """Share of training in which the rate rises from 0; then it falls to 0 as a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    layer_decay: float = 1.0
    """Rate of each backbone layer relative to the next deeper one; 1: all alike."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is no number does: end the run, or skip the step, its weights and statistics
    untouched."""
    max_skipped: int = 3
    """Skipped steps in a row that are put up with; one more ends the run."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are scored and exported, for example 0.999; 0: none."""

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
        """The learning rate at the end of warm-up."""
        return self.learning_rate * self.batch_size / REFERENCE_BATCH

    def progress(self, step: int, seconds: float) -> float:
        """Share of training done, in [0, 1], after `step` steps and `seconds` of training time."""
        shares = [step / self.steps] if self.steps else []
        shares += [seconds / self.max_seconds] if self.max_seconds else []
        return min(max(shares), 1.0)

    def rate(self, progress: float) -> float:
        """The learning rate at a share of training: linear warm-up, then half a cosine to 0."""
        if progress < self.warmup_ratio:
            return self.peak_rate * progress / self.warmup_ratio
        rest = (progress - self.warmup_ratio) / (1 - self.warmup_ratio)
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * rest))


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How the machine is used. The defaults suit a laptop and a GPU alike."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the forward pass; auto: bf16 where the hardware has it."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Memory layout; auto: on for convolutional backbones."""
    compile: bool = False
    """Torch.compile the model: half a minute before the first step, pays on long runs."""
    shard: bool = False
    """Of several processes, each keeps a part of the backbone's weights, gradients and optimiser state (FSDP): for
    backbones whose training does not fit one GPU's memory."""
    num_threads: int = 0
    """CPU threads of this process; 0: one a core."""
    allocator: Literal["system", "keep"] = "system"
    """Keep: freed memory is kept for the next step, not handed back to the system (Linux); faster where images are
    large, and the process holds its peak."""

    def accelerator(self, device: str) -> Accelerator:
        """The accelerate object for `device` (auto, cpu, cuda or mps); raises `UserError` if it is not there."""
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
        # heads without a row in this process's part of the batch get no gradient
        AcceleratorState._reset_state()  # it refuses a second precision in one process, where a study has several runs
        settings = DistributedDataParallelKwargs(find_unused_parameters=True)
        patience = InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE_SECONDS))
        return Accelerator(
            cpu=chosen == "cpu",
            mixed_precision="bf16" if self.half_precision(chosen) else "no",
            kwargs_handlers=[settings, patience],
        )

    def half_precision(self, device: str) -> bool:
        """Whether the forward pass runs in bfloat16 on `device`."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if device == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        # without the instructions, bfloat16 on a CPU is emulated and slower than float32
        return device == "cpu" and torch.cpu._is_avx512_bf16_supported()

    def layout(self, backbone: nn.Module) -> torch.memory_format:
        """The memory format for the model and its images."""
        from vision_mtl.models.backbone import is_convolutional

        on = is_convolutional(backbone) if self.channels_last == "auto" else self.channels_last == "on"
        return torch.channels_last if on else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is recorded during training. Times of recording do not count as training."""

    log_every_steps: int = 10
    """Steps between lines of metrics.jsonl; each holds the mean loss since the last."""
    num_probes: int = 3
    """Online probes (kNN on the tasks' validation images), evenly over the run; 0: none."""
    num_pictures: int = 2
    """Pictures of repairs for TensorBoard, evenly over the run; 0: none."""
    checkpoint_every_seconds: float = 60.0
    """Training seconds between checkpoints; one more is written at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl: numbers, pictures, features, config."""
    tracker: Literal["none", "mlflow", "wandb", "trackio"] = "none"
    """A service that gets numbers and pictures as well; it keeps them in the run's folder, unless its own environment
    variables say otherwise."""
    project: str = "vision_mtl"
    """What the service calls the experiment or project."""

    def __post_init__(self) -> None:
        from vision_mtl.training.recorders import require_package

        require_package(self.tracker)
