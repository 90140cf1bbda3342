"""All stages, summed at one coarse stride, then two convolutions: good pictures for little arithmetic.

The sum of projected stages is Lin et al., "Feature pyramid networks", 2017, https://arxiv.org/abs/1612.03144, sec. 3,
in one step. Shallow stages let detail bypass the deep ones, which then learn less, so three ways of reading them:

- `drop`: for `drop_ratio` of the images in training the shallow stages are left out, so the deepest must do the work;
- `stop_gradient`: the pictures read all stages but pass no gradient back; a second readout of the last map trains;
- `all`: every stage, always.
"""
# B images, D feature width, h w positions

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vision_mtl.models.decoder import DECODERS, Decoder, DecoderOptions, MapSpec, natural_stride, resize_map


@DECODERS.register("stages")
@dataclass(frozen=True, kw_only=True)
class Stages(DecoderOptions):
    """Projects each map to `width` channels, sums them at `stride` and mixes neighbours by `depth` 3x3 convolutions."""

    width: int = 64
    """Channels of the sum; 64 keeps the decoder near a tenth of a resnet18's step."""
    stride: int = 4
    """Pixels along one position of the sum; the finest map's own stride if that is coarser."""
    depth: int = 2
    """3x3 convolutions after the sum."""
    shallow: Literal["drop", "stop_gradient", "all"] = "drop"
    """How the stages before the last are read."""
    drop_ratio: float = 0.25
    """Share of images whose shallow stages are left out in training, for shallow=drop."""

    def build(self, maps: MapSpec) -> Decoder:
        return StagesDecoder(maps, self)


class StagesDecoder(Decoder):
    """The sum of all stages, then convolutions; a second readout of the last map for shallow=stop_gradient."""

    def __init__(self, maps: MapSpec, options: Stages) -> None:
        super().__init__(maps)
        width, depth, shallow = options.width, options.depth, options.shallow
        self.shallow, self.drop_ratio = shallow, options.drop_ratio
        finest = natural_stride(maps.sizes[0], maps.image_size)
        self.stride = max(options.stride, finest)
        self.project = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels in maps.channels)
        blocks = [(nn.GELU(), nn.Conv2d(width, width, kernel_size=3, padding=1)) for _ in range(depth)]
        self.mix = nn.Sequential(nn.GroupNorm(1, width), *(layer for block in blocks for layer in block), nn.GELU())
        self.readouts = [(width, self.stride)]
        if shallow == "stop_gradient":
            self.readouts.append((maps.channels[-1], natural_stride(maps.sizes[-1], maps.image_size)))

    def forward(
        self, maps: Sequence[Tensor], hidden: Tensor | None = None, drop_draw: Tensor | None = None
    ) -> list[Tensor]:
        read = [m.detach() for m in maps] if self.shallow == "stop_gradient" else maps
        size = self.grid(self.stride)
        keep = None if self.shallow != "drop" or drop_draw is None else drop_draw >= self.drop_ratio  # (B,)
        total = resize_map(self.project[-1](read[-1]), size)
        for features, project in zip(read[:-1], self.project[:-1], strict=True):
            part = resize_map(project(features), size)
            total = total + (part if keep is None else part * keep.to(part.dtype)[:, None, None, None])
        pictures = self.mix(total)
        if self.shallow == "stop_gradient":
            return [pictures, resize_map(maps[-1], self.grid(self.readouts[1][1]))]
        return [pictures]
