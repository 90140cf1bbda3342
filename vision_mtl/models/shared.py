"""The shared model: one backbone, one decoder, and a small head for each pretext and each task, over one mixed batch.

The loss of an image passes back through the head of its pretext, or of every task that it is labelled for, and then
through the shared layers. A head that no image of a batch needs is not run: its gradient stays None, so that neither
weight decay nor momentum changes it.
"""
# B images, C channels, H W pixels, K outputs, h w positions, b rows of one request

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vision_mtl.core.device_transfer import send
from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.compiling import maybe_compiled
from vision_mtl.models.decoder import (
    Decoder,
    EmbeddingHead,
    FeatureMapHead,
    LogitHead,
    PixelHead,
    TaskHead,
    ValueTaskHead,
    predicts_zero,
)
from vision_mtl.models.passes import Shown, batch_norms, fill_rows, merge, shared_momentum, split_rows
from vision_mtl.models.request import Request
from vision_mtl.models.visible import Runs, concat_rows, hidden_tokens

LAST_MAP_HEADS = {  # kind of a head on the last map -> its class
    "logits": LogitHead,
    "embedding": EmbeddingHead,
    "features": LogitHead,
    "feature_map": FeatureMapHead,
}
NAME_RULE = "letters, digits, - and _ only"


@dataclass(frozen=True)
class HeadSpec:
    """The output of a pretext's head: K maps at full resolution, K logits, an embedding, or K features of a teacher.

    With `learned_fill` the model also learns the colour of the pretext's hidden pixels.
    """

    kind: Literal["pixels", "logits", "embedding", "features", "feature_map"]
    num_outputs: int
    learned_fill: bool = False

    @property
    def is_dense(self) -> bool:
        """True if the output has a value for each pixel, which needs the decoder."""
        return self.kind == "pixels"


class SharedModel(nn.Module):
    """One backbone and one decoder with a head for each pretext of `head_specs` and each task of `task_specs`.

    A pretext may have the name of a task. A pretext that repairs pixels has a head on each readout of the decoder; a
    dense task has one, on the first readout. Raises `UserError` for a task's name that cannot name a module.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        head_specs: Mapping[str, HeadSpec],
        task_specs: Mapping[str, TaskHeadSpec] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.head_specs = dict(head_specs)
        self.heads = nn.ModuleDict({name: self._build_heads(spec) for name, spec in head_specs.items()})
        learned = [name for name, spec in head_specs.items() if spec.learned_fill]
        # 0.5: the middle of the range
        self.fills = nn.ParameterDict(
            {name: nn.Parameter(torch.full((backbone.in_chans, 1, 1), 0.5)) for name in learned}
        )
        self.frozen: list[nn.Module] = []  # modules that `train` keeps in eval mode
        # own number of passes -> the largest of all processes; set where all must run the backbone equally often
        self.common_passes: Callable[[int], int] | None = None
        self.task_specs: dict[str, TaskHeadSpec] = {}
        self.task_heads = nn.ModuleDict()
        for name, spec in (task_specs or {}).items():
            self.add_task(name, spec)

    def train(self, mode: bool = True) -> SharedModel:
        """Set training mode for all modules except the frozen ones."""
        super().train(mode)
        for module in self.frozen:
            module.training = False  # not `eval()`, which would include its children
        return self

    def add_task(self, name: str, spec: TaskHeadSpec) -> None:
        """Add a newly initialised head for another task; raises `UserError` for an invalid or used name."""
        if not re.fullmatch(r"[\w-]+", name) or name in self.task_specs:
            raise UserError(f"a task's name must be new and have {NAME_RULE}; found {name!r}.")
        self.task_specs[name] = spec
        size, readout = self.backbone.image_size, self.decoder.readouts[0]
        head = label_kind(spec.kind).head(spec, self.backbone.num_features, readout, size)
        self.task_heads[_module_name(name)] = head

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D): the backbone's last map, averaged over positions."""
        return self.backbone.embed(images)

    def task_head(self, name: str) -> nn.Module:
        """The head of task `name`."""
        return self.task_heads[_module_name(name)]

    def predicts_zero(self, name: str) -> bool:
        """Whether the first head of pretext `name` is as small as a new one, so that it predicts about zero."""
        return predicts_zero(next(iter(self.heads[name].children())))

    def set_unit(self, task: str, offset: float, scale: float) -> None:
        """Make the head of a task of numbers standardise by `offset` and `scale`; its predictions stay the same."""
        self.task_specs[task] = replace(self.task_specs[task], offset=offset, scale=scale)
        if not label_kind(self.task_specs[task].kind).has_classes:
            cast(ValueTaskHead, self.task_head(task)).set_unit(offset, scale)

    def probabilities(self, task: str, outputs: Tensor) -> Tensor:
        """Outputs of a task's head -> calibrated probabilities, or numbers for a task without classes."""
        return cast(TaskHead, self.task_head(task)).probabilities(outputs)

    def forward(
        self,
        images: Tensor,
        requests: Sequence[Request],
        drop_draw: Tensor | None = None,
        shown: Shown | None = None,
    ) -> dict[str, list[Tensor]]:
        """Images (B, C, H, W), damaged or not -> key of each request -> its predictions, (b, K, H, W) or (b, K).

        A pretext that repairs pixels has a prediction from each readout, all others have one; the key of a task is
        `task:NAME`. `drop_draw` (B,) in [0, 1) is one random number per image, for a decoder that drops inputs. In
        training with BatchNorm, `shown` keeps rows that would show each other's hidden pixels in separate passes.
        """
        images = self.fill_hidden(images, requests)
        hidden, runs = self._hidden_tokens(images, requests)
        maps = self._encode(images, hidden, runs, shown)
        readouts, places = self._decode(maps, hidden, drop_draw, requests)
        predictions = {}
        for request in requests:
            spec, heads = self._spec_and_heads(request)
            if spec.is_dense:
                rows = places[request.key]
                predictions[request.key] = [head(r[rows]) for head, r in zip(heads, readouts, strict=False)]
            else:
                predictions[request.key] = [heads[0](maps[-1][request.rows])]
        return predictions

    def fill_hidden(self, images: Tensor, requests: Sequence[Request]) -> Tensor:
        """(B, C, H, W) with the learned colour in the pixels that pretexts with fill=learned hide."""
        for request in requests:
            if request.name in self.fills and request.mask is not None:
                rows = request.span
                filled = torch.where(request.mask, self.fills[request.name].clamp(0, 1), images[rows])
                images = torch.cat((images[: rows.start], filled.to(images.dtype), images[rows.stop :]))
        return images

    def _encode(self, images: Tensor, hidden: Tensor | None, runs: Runs | None, shown: Shown | None) -> list[Tensor]:
        """The backbone's maps, from one pass or from as many as `shown` asks for."""
        last_only = self.decoder.reads_last_only
        norms: list[nn.modules.batchnorm._BatchNorm] = []
        if self.training and shown is not None and (self.common_passes is not None or shown.num_passes > 1):
            norms = batch_norms(self.backbone)
        passes = split_rows(shown, shown.num_passes) if norms and shown is not None else []
        if passes and self.common_passes is not None:
            passes += [[] for _ in range(self.common_passes(len(passes)) - len(passes))]
        if len(passes) < 2 or shown is None:
            return self.backbone(images, hidden, last_only, runs)
        filled = [fill_rows(rows, shown) for rows in passes]
        maps = []
        with shared_momentum(norms, len(filled)):
            for rows in filled:
                index = send(torch.tensor(rows), images.device)
                own = images.index_select(0, index)
                maps.append(self.backbone(own, None if hidden is None else hidden[index], last_only))
        return merge(maps, passes)

    def _decode(
        self, maps: list[Tensor], hidden: Tensor | None, drop_draw: Tensor | None, requests: Sequence[Request]
    ) -> tuple[list[Tensor], dict[str, slice | Tensor]]:
        """The readouts of the rows that need the decoder, and each dense request's rows among them."""
        count, decode = len(maps[-1]), maybe_compiled(self.decoder, _readouts)
        dense = {r.key: r.rows for r in requests if self._spec_and_heads(r)[0].is_dense}
        if not dense:
            return [], {}
        slices = {key: rows for key, rows in dense.items() if isinstance(rows, slice)}
        if sum(rows.stop - rows.start for rows in slices.values()) == count:
            return decode(self.decoder, maps, hidden, drop_draw), dense
        chosen: list[slice] | Tensor
        if len(slices) == len(dense):  # the rows are known on the CPU: no GPU synchronisation
            chosen, places = _place_slices(slices)
        else:
            chosen, places = _place_rows(dense, count, maps[-1].device)
        inputs = (None if x is None else _take(x, chosen) for x in (hidden, drop_draw))
        return decode(self.decoder, [_take(m, chosen) for m in maps], *inputs), places

    def _spec_and_heads(self, request: Request) -> tuple[HeadSpec | TaskHeadSpec, Sequence[nn.Module]]:
        """The request's head spec, and its heads: one for each readout of the decoder, or a single one."""
        if request.is_task:
            return self.task_specs[request.name], [self.task_head(request.name)]
        return self.head_specs[request.name], list(self.heads[request.name].children())

    def _hidden_tokens(self, images: Tensor, requests: Sequence[Request]) -> tuple[Tensor | None, Runs | None]:
        """(B, 1, h, w) bool tokens to leave out, and the visible tokens of each row where that number is known.

        The tokens are None if backbone or decoder needs every position, or if no token of any process is hidden.
        """
        if self.decoder.needs_all_positions or not self.backbone.skips_hidden:
            return None, None
        if tuple(images.shape[-2:]) != tuple(self.backbone.image_size):  # views of another size have no hidden pixels
            return None, None
        grid, together = self.backbone.map_sizes[-1], self.backbone.common_counts is not None
        masked = [(request, request.mask) for request in requests if request.mask is not None]
        runs = None if together else _visible_runs(len(images), [request for request, _ in masked], grid)
        if runs is not None and all(count == math.prod(grid) for _, count in runs):
            return None, None
        hidden = images.new_zeros(len(images), 1, *grid, dtype=torch.bool)
        for request, mask in masked:
            hidden[request.rows] = hidden_tokens(mask, grid)
        return (hidden, runs) if together or runs is not None or bool(hidden.any()) else (None, None)

    def _build_heads(self, spec: HeadSpec) -> nn.ModuleList:
        if not spec.is_dense:
            return nn.ModuleList([LAST_MAP_HEADS[spec.kind](self.backbone.num_features, spec.num_outputs)])
        size = self.backbone.image_size
        return nn.ModuleList(
            PixelHead(width, spec.num_outputs, stride, size) for width, stride in self.decoder.readouts
        )


def _readouts(decoder: Decoder, maps: list[Tensor], hidden: Tensor | None, drop_draw: Tensor | None) -> list[Tensor]:
    """The decoder's readouts, as a module-level function for `maybe_compiled`."""
    return decoder(maps, hidden, drop_draw)


def _place_slices(slices: Mapping[str, slice]) -> tuple[list[slice], dict[str, slice | Tensor]]:
    """The slices in the order of their rows, and the place of each among the chosen rows."""
    in_order = sorted(slices.items(), key=lambda item: item[1].start)
    places: dict[str, slice | Tensor] = {}
    end = 0
    for key, rows in in_order:
        start, end = end, end + rows.stop - rows.start
        places[key] = slice(start, end)
    return [rows for _, rows in in_order], places


def _place_rows(
    rows_of: Mapping[str, slice | Tensor], count: int, device: torch.device
) -> tuple[Tensor, dict[str, slice | Tensor]]:
    """The rows (n,) of `count` that any request has, each once, and the places of each request's rows among them."""
    needed = torch.zeros(count, dtype=torch.bool, device=device)
    for rows in rows_of.values():
        needed[rows] = True
    place = needed.cumsum(0) - 1
    return needed.nonzero()[:, 0], {key: place[rows] for key, rows in rows_of.items()}


def _take(values: Tensor, rows: list[slice] | Tensor) -> Tensor:
    """The chosen rows of (B, ...)."""
    return concat_rows(values, rows) if isinstance(rows, list) else values[rows]


def _visible_runs(num_rows: int, masked: Sequence[Request], grid: tuple[int, int]) -> Runs | None:
    """The runs of a whole batch with their visible tokens of a grid (h, w); None if a request does not know them.

    `masked` are the requests that hide pixels. All other rows are visible.
    """
    runs: list[tuple[slice, int]] = []
    start, whole = 0, math.prod(grid)
    for request in sorted(masked, key=lambda r: r.span.start):
        count = None if request.hidden_tokens is None else request.hidden_tokens(grid)
        if count is None:
            return None
        rows = request.span
        runs += [(slice(start, rows.start), whole), (rows, whole - count)]
        start = rows.stop
    return [(rows, count) for rows, count in [*runs, (slice(start, num_rows), whole)] if rows.start < rows.stop]


def _module_name(task: str) -> str:
    """The key of a task's head; the prefix avoids clashes with attributes of `nn.ModuleDict` (`keys`, `pop`, ...)."""
    return f"task_{task}"
