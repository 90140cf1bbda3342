"""The last map as the only readout: a linear head repairs the square of the image at each of its positions.

Xie et al., "SimMIM", 2022, https://arxiv.org/abs/2111.09886, sec. 3.3: a one-layer head is enough to learn features.
All information must pass through the deepest map, so features are good and pictures are coarse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vision_mtl.models.decoder import DECODERS, Decoder, DecoderOptions, MapSpec, natural_stride, resize_map


@DECODERS.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(DecoderOptions):
    """Passes the last map to the heads unchanged."""

    def build(self, maps: MapSpec) -> Decoder:
        return LinearDecoder(maps)


class LinearDecoder(Decoder):
    """Passes the last map to the heads unchanged."""

    reads_last_only = True

    def __init__(self, maps: MapSpec) -> None:
        super().__init__(maps)
        self.readouts = [(maps.channels[-1], natural_stride(maps.sizes[-1], maps.image_size))]

    def forward(
        self, maps: Sequence[Tensor], hidden: Tensor | None = None, drop_draw: Tensor | None = None
    ) -> list[Tensor]:
        return [resize_map(maps[-1], self.grid(self.readouts[0][1]))]
