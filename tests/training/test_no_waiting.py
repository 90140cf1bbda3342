"""A step asks nothing of the device that has its images: every number that it needs at once is on the CPU already."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.suitability import Suitability
from vision_mtl.training.repair import RepairFeed

# not numpy: draws of the CPU go through it
ASKING = {"item", "tolist", "nonzero", "unique", "cpu", "__bool__", "__int__", "__float__", "__index__"}


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU: what comes of it is there too, and what asks for its values is noted."""

    asked: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ASKING:
            cls.asked.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> type[OnDevice]:
    """Every batch of a feed, and every key that is sent to where its images are."""
    OnDevice.asked = []
    original, moved = RepairFeed.at, Keys.to

    def at(self, step: int, num_micro_batches: int):
        found = original(self, step, num_micro_batches)
        return [((images.as_subclass(OnDevice), keys), share) for (images, keys), share in found]

    def to(self, device: torch.device) -> Keys:
        there = moved(self, device)
        there.index = there.index.as_subclass(OnDevice)
        return there

    monkeypatch.setattr(RepairFeed, "at", at)
    monkeypatch.setattr(Keys, "to", to)
    return OnDevice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [("test_resnet", "stages"), ("vit_small_patch8_224", "transformer")],  # the second encodes visible tokens only
)
def test_a_step_between_two_looks_waits_for_nothing(make_trainer, on_device, backbone: str, decoder: str) -> None:
    """Once each image has been seen: whether it has colours is looked up from then on."""
    trainer = make_trainer(backbone, steps=8, images=16, decoder=decoder)
    trainer.guard.read_every = 6
    trainer.model.train()
    for _ in range(2):  # an epoch
        trainer._take_step()
    assert on_device.asked == ["cpu", "cpu"]
    on_device.asked.clear()
    trainer._take_step()
    assert on_device.asked == []
    trainer.guard.read(trainer.progress)
    assert "tolist" in on_device.asked


def test_what_suits_an_image_is_asked_once_and_remembered() -> None:
    grey, coloured = torch.full((3, 3, 8, 8), 0.5), torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pretexts = {name: PRETEXTS.get(name)() for name in ("decolorise", "downsample")}
    known = Suitability()
    first = known.of(pretexts, torch.cat((grey, coloured)), torch.tensor([4, 900, 7, 1, 0, 5]))
    assert first.tolist() == [[False, True]] * 3 + [[True, True]] * 3
    # other pictures under the numbers that are known
    again = known.of(pretexts, torch.cat((coloured[:2], grey[:1])), torch.tensor([7, 4, 1]))
    assert again.tolist() == [[False, True], [False, True], [True, True]]
    assert known.of(pretexts, coloured[:1], torch.tensor([2])).tolist() == [[True, True]]
