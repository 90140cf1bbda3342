"""Repair chosen damage with a run's network: by the head for that damage, or by several heads in turn."""
# b = 1 image, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vision_mtl.config.resolve import with_added_to_pretexts
from vision_mtl.config.run_config import read_section
from vision_mtl.discovery.measure import START
from vision_mtl.discovery.skill import predict_part
from vision_mtl.explorer.damage import BY_HAND, CHAIN, own_draw, part_of
from vision_mtl.inference.pictures import NAMES
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.chain import DEFAULT_STEPS, Chain
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Part
from vision_mtl.training.repair import zero_prediction

Autocast = Callable[[], AbstractContextManager[object]]


class Repairer:
    """A model in evaluation mode, and the pretexts that it has heads for, with the options of its run.

    `start` repairs with the network that the run started from, if it is known.
    """

    def __init__(
        self,
        model: SharedModel,
        state: Mapping[str, Any],
        autocast: Autocast = nullcontext,
        start: SharedModel | None = None,
    ) -> None:
        self.model, self.autocast = model.eval(), autocast
        self.start: Repairer | None = None
        if start is not None:
            start.backbone.set_statistics(model.backbone.mean.flatten(), model.backbone.std.flatten())
            self.start = Repairer(start, state, autocast)
        options = with_added_to_pretexts({name: state["pretexts"][name] for name in model.head_specs})
        self.pretexts: dict[str, Pretext] = read_section("pretexts", options)

    def predict(self, part: Part, damaged: Tensor) -> Tensor:
        """Return the head's prediction for images (1, C, H, W), float32 (1, K, H, W) or (1, K)."""
        return predict_part(self.model, part, damaged, self.autocast)

    def seen(self, part: Part, damaged: Tensor) -> Tensor:
        """Return the encoder's input (1, C, H, W) in [0, 1], with the learned fill if the pretext has one."""
        with torch.no_grad():
            return self.model.fill_hidden(damaged, [part]).clamp(0, 1)

    def repair(self, part: Part, damaged: Tensor) -> tuple[Tensor | None, str]:
        """Return the repair (1, C, H, W) in [0, 1], None if a head is missing, and an explanation."""
        if self._has_head(part):
            return part.pretext.repair(self.predict(part, damaged), damaged, part.draw), self._words(part)
        missing = [kind for kind in self._steps(part) if kind not in self.pretexts]
        if missing:
            lost = " or ".join(NAMES.get(kind, kind) for kind in missing)
            return None, f"No head of this run repairs {lost}, so only the classic repair is shown."
        return self._in_turn(part, damaged), "The heads repaired one after the other, the last damage first."

    def unlearned(self, part: Part, damaged: Tensor) -> dict[str, Tensor]:
        """Return the repairs (1, C, H, W) without learning, by rule: those that fit no training image, and the start.

        `untrained` is the repair of an all-zero prediction.
        """
        pretext, images, draw = part.pretext, part.images, part.draw
        fixed = pretext.rules(images, draw)
        classic = fixed.pop(pretext.classic, None)
        start = None if self.start is None else self.start.repair(part, damaged)[0]
        return {
            **fixed,
            "classic": pretext.reference(images, draw) if classic is None else classic,
            "untrained": pretext.repair(zero_prediction(pretext, images), damaged, draw),
            **({} if start is None else {START: start}),
        }

    def _in_turn(self, part: Part, damaged: Tensor) -> Tensor:
        """Undo the last damage first, so that each head gets an image with only its damage left."""
        current, chain = damaged, part.pretext
        assert isinstance(chain, Chain), part.name  # a single damage has one head, or none
        for number, kind in enumerate(reversed(self._steps(part))):
            draw = own_draw(part, kind)
            step = part_of(kind, chain.step(kind), current, draw)
            seen = step.pretext.corrupt(current, draw) if number else current
            repaired = step.pretext.repair(self.predict(step, seen), seen, draw)
            current = torch.where(step.pretext.scored(current, draw), repaired, current)
        return current

    def _has_head(self, part: Part) -> bool:
        """Return True if a head was trained on this damage, or this combination."""
        if part.name == CHAIN and isinstance(trained := self.pretexts.get(CHAIN), Chain):
            return set(trained.steps or DEFAULT_STEPS) == set(self._steps(part))
        return part.name in self.pretexts

    def _steps(self, part: Part) -> list[str]:
        chained = part.pretext.steps if isinstance(part.pretext, Chain) else ()
        return [kind for kind in BY_HAND if kind in chained] or [part.name]

    def _words(self, part: Part) -> str:
        several = " and ".join(NAMES.get(kind, kind) for kind in self._steps(part))
        return f"The run's head for {several} repaired it."
