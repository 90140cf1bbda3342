"""The choice between PyTorch's fused attention kernel and explicit matrix products.

On a CPU the backward pass of the fused kernel is far slower than explicit products, and with few tokens it saves no
memory worth having. Forward and backward of 3 heads of width 64 (EPYC, 1 thread, torch 2.13), in ms:

| batch | tokens | fused / explicit, bfloat16 | fused / explicit, float32 |
|---|---|---|---|
| 128 | 17 | 21 / 2 | 6 / 3 |
| 128 | 65 | 76 / 9 | 34 / 26 |
| 16 | 197 | 34 / 7 | 25 / 21 |
"""

from __future__ import annotations

import torch
from torch import nn

MOST_POSITIONS = 256  # of the finest map: with more, the matrix of all pairs takes too much memory


def choose_attention(model: nn.Module, device: torch.device, positions: int) -> None:
    """Set timm's attention layers in `model` to the faster implementation; `positions` are those of the finest map.

    Both implementations give the same values up to rounding.
    """
    fused = device.type != "cpu" or positions > MOST_POSITIONS
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = fused  # type: ignore[assignment]  # timm's flag, a bool
