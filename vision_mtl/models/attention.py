"""Which way attention is computed: PyTorch's fused kernel, or written out.

On a CPU the fused kernel's backward pass is far slower than the three products it stands for, while few tokens leave it
nothing to save. Forward and backward of 3 heads of width 64, batch 128 (EPYC, 1 thread, torch 2.13), fused against
written out: 21 against 2 ms for 17 tokens in bfloat16, 6 against 3 in float32; 76 against 9 for 65 tokens, 34 against
26; with batch 16, 34 against 7 for 197 tokens, 25 against 21.
"""

from __future__ import annotations

import torch
from torch import nn

MOST_POSITIONS = 256  # of the finest map: beyond, the table of all pairs takes too much memory


def choose_attention(model: nn.Module, device: torch.device, positions: int) -> None:
    """Have timm's attention layers in `model`, whose finest map has so many positions, take the faster way.

    Both give the same numbers up to rounding.
    """
    fused = device.type != "cpu" or positions > MOST_POSITIONS
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = fused  # type: ignore[assignment]  # timm's flag, a bool
