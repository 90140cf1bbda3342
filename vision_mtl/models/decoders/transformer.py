"""A few transformer blocks over the tokens of the last map, with mask tokens at positions that were not encoded.

He et al., "Masked autoencoders are scalable vision learners", 2022, https://arxiv.org/abs/2111.06377, sec. 3.
Differs from the paper: 2 blocks of width 192 instead of 8 of 512, for small images and small machines; the encoder may
be any architecture, since the positions of its last map are the tokens.
"""
# B images, D width, h w positions, N = h * w tokens

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.decoder import (
    DECODERS,
    Decoder,
    DecoderOptions,
    MapSpec,
    natural_stride,
    resize_map,
    sine_positions,
)


@DECODERS.register("transformer")
@dataclass(frozen=True, kw_only=True)
class Transformer(DecoderOptions):
    """`depth` pre-norm blocks over the last map's tokens, with fixed sine-cosine positions."""

    width: int = 192
    """Width of a token, a multiple of 4 and of num_heads."""
    depth: int = 2
    """Number of transformer blocks."""
    num_heads: int = 6
    """Number of attention heads of each block."""

    def build(self, maps: MapSpec) -> Decoder:
        return TransformerDecoder(maps, self)


class TransformerDecoder(Decoder):
    """The blocks over the last map's tokens. Raises `UserError` if 4 or num_heads does not divide the width."""

    reads_last_only = True
    needs_all_positions = False
    positions: Tensor  # (1, N, D)

    def __init__(self, maps: MapSpec, options: Transformer) -> None:
        from timm.models.vision_transformer import Block  # late: --help must not wait for timm

        super().__init__(maps)
        width, depth, num_heads = options.width, options.depth, options.num_heads
        if width % 4 or width % num_heads:
            raise UserError(
                f"decoder.width must be a multiple of 4 and of decoder.num_heads, {num_heads}; found {width}."
            )
        stride = natural_stride(maps.sizes[-1], maps.image_size)
        self.readouts = [(width, stride)]
        self.embed = nn.Linear(maps.channels[-1], width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)  # 0.02: from the authors' code
        self.register_buffer("positions", sine_positions(*self.grid(stride), width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, num_heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, maps: Sequence[Tensor], hidden: Tensor | None = None, drop_draw: Tensor | None = None
    ) -> list[Tensor]:
        size = self.grid(self.readouts[0][1])
        tokens = self.embed(maps[-1].flatten(2).transpose(1, 2))  # (B, N, D)
        if hidden is not None:
            tokens = torch.where(hidden.flatten(1)[..., None], self.mask_token.to(tokens.dtype), tokens)
        own_size = tuple(maps[-1].shape[-2:])  # of enlarged images, the map's positions are not the readout's
        tokens = resize_map(tokens.transpose(1, 2).unflatten(2, own_size), size).flatten(2).transpose(1, 2)
        tokens = self.norm(self.blocks(tokens + self.positions))
        return [tokens.transpose(1, 2).unflatten(2, size)]  # (B, D, h, w)
