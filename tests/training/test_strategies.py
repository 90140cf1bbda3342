"""Which strategy a run has, and what it promises the loop; steps of several processes: `test_several_processes.py`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vision_mtl.training.strategies.build import build_strategy
from vision_mtl.training.strategies.contract import Strategy
from vision_mtl.training.strategies.data_parallel import DataParallel
from vision_mtl.training.strategies.sharded import Sharded
from vision_mtl.training.strategies.single_process import SingleProcess


def strategy(num_processes: int, shard: bool) -> Strategy:
    return build_strategy(SimpleNamespace(num_processes=num_processes, device=torch.device("cpu")), shard)


@pytest.mark.parametrize(
    ("num_processes", "shard", "expected", "promises"),
    [
        (1, False, SingleProcess, (True, True, False)),
        (1, True, SingleProcess, (True, True, False)),
        (2, False, DataParallel, (False, True, False)),
        (2, True, Sharded, (False, False, True)),
    ],
)
def test_the_processes_choose_the_strategy(
    num_processes: int, shard: bool, expected: type[Strategy], promises: tuple[bool, bool, bool]
) -> None:
    found = strategy(num_processes, shard)
    assert type(found) is expected
    assert (found.alone, found.reads_late, found.saves_together) == promises


def test_one_process_clips_as_torch_does_and_has_its_weights(make_trainer) -> None:
    trainer = make_trainer(names=("grid_mask",), steps=1)
    found = trainer.strategy
    with found.full_weights(trainer.model) as model:
        assert model is trainer.model is trainer.scored_model
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.full((4,), 3.0)
    assert found.clip([parameter], 1.5).item() == pytest.approx(6.0)
    assert parameter.grad.norm().item() == pytest.approx(1.5, rel=1e-5)
    assert found.any(True) and not found.any(False) and found.gather_texts("a") == "a"
