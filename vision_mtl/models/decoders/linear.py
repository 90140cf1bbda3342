"""The last map alone: each of its positions repairs its own square of the image through one linear layer.

Xie et al., "SimMIM", 2022, https://arxiv.org/abs/2111.09886, sec. 3.3: a one-layer head is enough to learn features.
Everything must pass the deepest map, which is why its features are good and its pictures are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vision_mtl.models.decoder import DECODERS, Decoder, DecoderOptions, MapSpec, natural_stride, resize_map


@DECODERS.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(DecoderOptions):
    """Hands the last map to the heads as it is."""

    def build(self, maps: MapSpec) -> Decoder:
        return LinearDecoder(maps)


class LinearDecoder(Decoder):
    """Hands the last map to the heads as it is."""

    reads_last_only = True

    def __init__(self, maps: MapSpec) -> None:
        super().__init__(maps)
        self.readouts = [(maps.channels[-1], natural_stride(maps.sizes[-1], maps.image_size))]

    def forward(
        self, maps: Sequence[Tensor], hidden: Tensor | None = None, drop_draw: Tensor | None = None
    ) -> list[Tensor]:
        return [resize_map(maps[-1], self.grid(self.readouts[0][1]))]
