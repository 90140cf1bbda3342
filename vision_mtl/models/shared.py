"""The shared model: one backbone, one decoder, and a small head for each pretext, over one mixed batch."""
# B images, C channels, H W pixels, K outputs, h w positions

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import Decoder, LogitHead, PixelHead
from vision_mtl.models.visible import hidden_tokens


@dataclass(frozen=True)
class Answer:
    """What a pretext's head must give: K maps at full resolution, or K logits; and whether its fill is learned."""

    kind: Literal["pixels", "logits"]
    num_outputs: int
    learned_fill: bool = False


@dataclass(frozen=True)
class Request:
    """Rows of a mixed batch that one pretext damaged; `hidden` is (b, 1, H, W) bool, or None where nothing is."""

    name: str
    rows: slice
    hidden: Tensor | None = None


class SharedModel(nn.Module):
    """`answers` maps a pretext's name to the head it needs; the decoder's readouts each get a head of their own."""

    def __init__(self, backbone: Backbone, decoder: Decoder, answers: Mapping[str, Answer]) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.answers = dict(answers)
        self.heads = nn.ModuleDict({name: self._head(answer) for name, answer in answers.items()})
        learned = [name for name, answer in answers.items() if answer.learned_fill]
        # 0.5: the middle of the range, as neutral a start as any
        self.fills = nn.ParameterDict(
            {name: nn.Parameter(torch.full((backbone.in_chans, 1, 1), 0.5)) for name in learned}
        )

    def forward(
        self, images: Tensor, requests: Sequence[Request], chance: Tensor | None = None
    ) -> dict[str, list[Tensor]]:
        """Damaged images (B, C, H, W) -> for each pretext, one prediction a readout: (b, K, H, W), or (b, K) logits.

        `chance` (B,) in [0, 1) is one number an image for whatever the decoder drops in training.
        """
        images = self.fill_hidden(images, requests)
        hidden = self._hidden_tokens(images, requests)
        maps = self.backbone(images, hidden)
        readouts = self.decoder(maps, hidden, chance)
        predictions = {}
        for request in requests:
            heads, rows = self.heads[request.name], request.rows
            if self.answers[request.name].kind == "logits":
                predictions[request.name] = [heads[0](maps[-1][rows])]
            else:
                predictions[request.name] = [head(r[rows]) for head, r in zip(heads, readouts, strict=True)]
        return predictions

    def fill_hidden(self, images: Tensor, requests: Sequence[Request]) -> Tensor:
        """Put the learned colour where a pretext with `fill: learned` hid pixels; the images themselves otherwise."""
        for request in requests:
            if request.name in self.fills and request.hidden is not None:
                filled = torch.where(request.hidden, self.fills[request.name].clamp(0, 1), images[request.rows])
                before, after = images[: request.rows.start], images[request.rows.stop :]
                images = torch.cat((before, filled.to(images.dtype), after))
        return images

    def _hidden_tokens(self, images: Tensor, requests: Sequence[Request]) -> Tensor | None:
        """(B, 1, h, w) bool tokens that need not be encoded; None where backbone or decoder needs every position."""
        if self.decoder.needs_all_positions or not self.backbone.skips_hidden:
            return None
        grid = self.backbone.map_sizes[-1]
        hidden = torch.zeros(len(images), 1, *grid, dtype=torch.bool, device=images.device)
        for request in requests:
            if request.hidden is not None:
                hidden[request.rows] = hidden_tokens(request.hidden, grid)
        return hidden if bool(hidden.any()) else None

    def _head(self, answer: Answer) -> nn.ModuleList:
        if answer.kind == "logits":
            return nn.ModuleList([LogitHead(self.backbone.num_features, answer.num_outputs)])
        size = self.backbone.image_size
        return nn.ModuleList(
            PixelHead(width, answer.num_outputs, stride, size) for width, stride in self.decoder.readouts
        )
