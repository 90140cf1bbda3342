"""`torch.compile`: compiled modules do not see which rows belong to which pretext, so only the first steps compile."""

from functools import cache

import pytest
import torch
from torch._dynamo.utils import counters

from vision_mtl.models import compiling
from vision_mtl.models.compiling import compile_modules

pytestmark = pytest.mark.slow  # torch.compile


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch):
    """Return the number of graphs compiled so far; they are only traced, because code generation takes a minute."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compiling, "_compiled", cache(lambda function: torch.compile(function, backend="eager")))
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize(("backbone", "decoder"), [("test_resnet", "stages"), ("vit_small_patch8_224", "transformer")])
def test_a_mixture_compiles_at_its_start_and_learns_the_same(make_trainer, graphs, backbone: str, decoder: str) -> None:
    losses, compiled, shares = [], [], set()
    for asked in (False, True):
        names = ("grid_mask", "downsample", "rotation")
        # with these images no late step has a part of one image, for which PyTorch would compile once more
        trainer = make_trainer(backbone, names, steps=7, decoder=decoder, images=56)
        if asked:
            compile_modules(trainer.model.backbone, trainer.model.decoder)
        trainer.model.train()
        found = []
        for _ in range(7):
            record = trainer.step()
            found.append(record.loss)
            shares.add(tuple(int(count) for _, count in record.sums.values()))
            compiled.append(graphs())
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert len(shares) > 3 and compiled[6] == 0 < compiled[9] == compiled[-1] <= 5
    assert not counters["graph_break"]
    trainer.model.eval()
    trainer.model.backbone(torch.rand(3, 3, 32, 32))
    assert graphs() == compiled[-1]
