"""Where and in which precision the arithmetic runs: resolved once, before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.memory import keep_freed_memory
from vision_mtl.models.backbone import is_convolutional

# how long a process waits for the others: validation, pictures and a first decoding are the work of one
PATIENCE_SECONDS = 3600

Allocator = Literal["system", "keep"]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How the machine is used. The defaults suit a laptop and a GPU alike."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the forward pass; auto: bf16 where the hardware has it
    channels_last: Literal["auto", "on", "off"] = "auto"  # memory layout; auto: on for convolutional backbones
    compile: bool = False  # torch.compile the model: half a minute before the first step, pays on long runs
    shard: bool = False  # of several processes, each keeps a part of the backbone's weights, gradients and optimiser
    # state (FSDP): for backbones whose training does not fit one GPU's memory
    num_threads: int = 0  # CPU threads of this process; 0: one a core
    allocator: Literal["system", "keep"] = "system"  # keep: freed memory is kept for the next step, not handed back to
    # the system (Linux); faster where images are large, and the process holds its peak
    tune: Literal["none", "same_precision", "any_precision"] = "none"  # time a few steps before training and take the
    # fastest of what is left open here: sums may round otherwise; any_precision: bf16 against fp32 as well
    tuned: dict[str, Any] = field(default_factory=dict)  # what tune chose; the run writes it into its config.yaml

    def accelerator(self, device: str) -> Accelerator:
        """The accelerate object for `device` (auto, cpu, cuda or mps); raises `UserError` if it is not there."""
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
        on = is_convolutional(backbone) if self.channels_last == "auto" else self.channels_last == "on"
        return torch.channels_last if on else torch.contiguous_format
