"""The shared model: one backbone, one decoder, and a small head for each pretext and each task, over one mixed batch.

The error of an image flows back through the head of its pretext, or of every task that it is labelled for, and then
through the shared layers. A head that no image of a batch needs is not run: its gradient stays None, so that neither
weight decay nor momentum moves it.
"""
# B images, C channels, H W pixels, K outputs, h w positions, b rows of one request

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.compiling import maybe_compiled
from vision_mtl.models.decoder import Decoder, EmbeddingHead, LogitHead, PixelHead
from vision_mtl.models.request import Request
from vision_mtl.models.visible import Runs, hidden_tokens, joined

NAME_RULE = "letters, digits, - and _ only"


@dataclass(frozen=True)
class HeadSpec:
    """What a pretext's head must give: K maps at full resolution, K logits or an embedding of K numbers; and whether
    its fill is learned."""

    kind: Literal["pixels", "logits", "embedding"]
    num_outputs: int
    learned_fill: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether the answer is a picture, which needs the decoder."""
        return self.kind == "pixels"


class SharedModel(nn.Module):
    """`answers` maps a pretext's name to the head it needs, `tasks` a task's; the two may share names.

    The decoder's readouts each get a head of their own for every pretext; a dense task reads the first. Raises
    `UserError` for a task's name that cannot name a module.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        answers: Mapping[str, HeadSpec],
        tasks: Mapping[str, TaskHeadSpec] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.head_specs = dict(answers)
        self.heads = nn.ModuleDict({name: self._head(answer) for name, answer in answers.items()})
        learned = [name for name, answer in answers.items() if answer.learned_fill]
        # 0.5: the middle of the range, as neutral a start as any
        self.fills = nn.ParameterDict(
            {name: nn.Parameter(torch.full((backbone.in_chans, 1, 1), 0.5)) for name in learned}
        )
        self.frozen: list[nn.Module] = []  # frozen modules, each of which `train` leaves in eval mode
        self.task_specs: dict[str, TaskHeadSpec] = {}
        self.task_heads = nn.ModuleDict()
        for name, answer in (tasks or {}).items():
            self.add_task(name, answer)

    def train(self, mode: bool = True) -> SharedModel:
        """Training mode for all but what is frozen."""
        super().train(mode)
        for module in self.frozen:
            module.training = False  # not `eval()`, which would still its children too
        return self

    def add_task(self, name: str, answer: TaskHeadSpec) -> None:
        """Give the model a freshly initialised head for another task."""
        if not re.fullmatch(r"[\w-]+", name) or name in self.task_specs:
            raise UserError(f"a task's name must be new and have {NAME_RULE}; found {name!r}.")
        self.task_specs[name] = answer
        size, readout = self.backbone.image_size, self.decoder.readouts[0]
        head = label_kind(answer.kind).head(answer, self.backbone.num_features, readout, size)
        self.task_heads[_module_name(name)] = head

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D): the backbone's last map, averaged over positions."""
        return self.backbone.embed(images)

    def task_head(self, name: str) -> nn.Module:
        """The head of task `name`."""
        return self.task_heads[_module_name(name)]

    def forward(
        self, images: Tensor, requests: Sequence[Request], drop_draw: Tensor | None = None
    ) -> dict[str, list[Tensor]]:
        """Images (B, C, H, W), damaged or not -> for each request, one prediction a readout.

        A prediction is (b, K, H, W) or (b, K); a task's is listed under `task:NAME`, and is one alone. `drop_draw` (B,)
        in [0, 1] is one number an image for whatever the decoder drops in training.
        """
        images = self.fill_hidden(images, requests)
        hidden, runs = self._hidden_tokens(images, requests)
        maps = self.backbone(images, hidden, self.decoder.reads_last_only, runs)
        readouts, places = self._decode(maps, hidden, drop_draw, requests)
        predictions = {}
        for request in requests:
            answer, heads = self._answerers(request)
            if answer.is_dense:
                rows = places[request.key]
                predictions[request.key] = [head(r[rows]) for head, r in zip(heads, readouts, strict=False)]
            else:
                predictions[request.key] = [heads[0](maps[-1][request.rows])]
        return predictions

    def fill_hidden(self, images: Tensor, requests: Sequence[Request]) -> Tensor:
        """(B, C, H, W) with the learned colour where a pretext with `fill: learned` hid pixels; else the images
        themselves."""
        for request in requests:
            if request.name in self.fills and request.mask is not None:
                filled = torch.where(request.mask, self.fills[request.name].clamp(0, 1), images[request.rows])
                before, after = images[: request.rows.start], images[request.rows.stop :]
                images = torch.cat((before, filled.to(images.dtype), after))
        return images

    def _decode(
        self, maps: list[Tensor], hidden: Tensor | None, drop_draw: Tensor | None, requests: Sequence[Request]
    ) -> tuple[list[Tensor], dict[str, slice | Tensor]]:
        """The readouts of the rows that need them, and where among those the rows of each such request are.

        Questions and classes need no decoder, and in supervised batches nothing else may be asked.
        """
        count, decode = len(maps[-1]), maybe_compiled(self.decoder, _readouts)
        wanted = {r.key: r.rows for r in requests if self._answerers(r)[0].is_dense}
        if not wanted:
            return [], {}
        slices = {key: rows for key, rows in wanted.items() if isinstance(rows, slice)}
        if sum(rows.stop - rows.start for rows in slices.values()) == count:
            return decode(self.decoder, maps, hidden, drop_draw), wanted
        if len(slices) == len(wanted):  # known here, so nothing is asked of the device
            slices = dict(sorted(slices.items(), key=lambda item: item[1].start))
            chosen = (None if x is None else joined(x, [*slices.values()]) for x in (hidden, drop_draw))
            places, end = {}, 0
            for key, rows in slices.items():
                places[key] = slice(end, end + rows.stop - rows.start)
                end = places[key].stop
            return decode(self.decoder, [joined(m, [*slices.values()]) for m in maps], *chosen), places
        needed = maps[-1].new_zeros(count, dtype=torch.bool)
        for rows in wanted.values():
            needed[rows] = True
        kept, places = needed.nonzero()[:, 0], needed.cumsum(0) - 1
        chosen = (None if x is None else x[kept] for x in (hidden, drop_draw))
        readouts = decode(self.decoder, [m[kept] for m in maps], *chosen)
        return readouts, {key: places[rows] for key, rows in wanted.items()}

    def _answerers(self, request: Request) -> tuple[HeadSpec | TaskHeadSpec, Sequence[nn.Module]]:
        """What the request asks for, and its heads: one for each readout, or a task's only one."""
        if request.is_task:
            return self.task_specs[request.name], [self.task_head(request.name)]
        return self.head_specs[request.name], self.heads[request.name]

    def _hidden_tokens(self, images: Tensor, requests: Sequence[Request]) -> tuple[Tensor | None, Runs | None]:
        """(B, 1, h, w) bool tokens that need not be encoded; None where backbone or decoder needs every position, or no
        process has such a token. And how many each row has visible, if that is known without asking the device."""
        if self.decoder.needs_all_positions or not self.backbone.skips_hidden:
            return None, None
        if tuple(images.shape[-2:]) != tuple(self.backbone.image_size):  # views of another size, which hide nothing
            return None, None
        grid, together = self.backbone.map_sizes[-1], self.backbone.common_counts is not None
        masked = [request for request in requests if request.mask is not None]
        runs = None if together else _visible_runs(len(images), masked, grid)
        if runs is not None and all(count == math.prod(grid) for _, count in runs):
            return None, None
        hidden = images.new_zeros(len(images), 1, *grid, dtype=torch.bool)
        for request in masked:
            hidden[request.rows] = hidden_tokens(request.mask, grid)
        return (hidden, runs) if together or runs is not None or bool(hidden.any()) else (None, None)

    def _head(self, answer: HeadSpec) -> nn.ModuleList:
        if not answer.is_dense:
            head = LogitHead if answer.kind == "logits" else EmbeddingHead
            return nn.ModuleList([head(self.backbone.num_features, answer.num_outputs)])
        size = self.backbone.image_size
        return nn.ModuleList(
            PixelHead(width, answer.num_outputs, stride, size) for width, stride in self.decoder.readouts
        )


def _readouts(decoder: Decoder, maps: list[Tensor], hidden: Tensor | None, drop_draw: Tensor | None) -> list[Tensor]:
    """What a decoder makes of maps (B, D, h, w), see `Decoder.forward`."""
    return decoder(maps, hidden, drop_draw)


def _visible_runs(num_rows: int, masked: Sequence[Request], grid: tuple[int, int]) -> Runs | None:
    """(rows, tokens of a grid (h, w) that each has visible) of a whole batch, in order; None if a request cannot say.

    `masked` are the requests that hide pixels. Rows of none of them are visible.
    """
    runs: list[tuple[slice, int]] = []
    start, whole = 0, math.prod(grid)
    for request in sorted(masked, key=lambda r: r.rows.start):
        count = None if request.hidden_tokens is None else request.hidden_tokens(grid)
        if count is None:
            return None
        runs += [(slice(start, request.rows.start), whole), (request.rows, whole - count)]
        start = request.rows.stop
    return [(rows, count) for rows, count in [*runs, (slice(start, num_rows), whole)] if rows.start < rows.stop]


def _module_name(task: str) -> str:
    """A task's key among modules: no attribute of `nn.ModuleDict` (`keys`, `pop`, ...) can clash with it."""
    return f"task_{task}"
