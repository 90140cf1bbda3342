"""Two processes with half the rows each take the step that one process with all of them takes."""

from __future__ import annotations

import datetime
import multiprocessing
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from small_model import Model, balance, batch, flat, step
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.slow  # several processes

NAMES = ("uncertainty", "dwa", "GradVac", "Random", "Mean")


def halves(rank: int) -> dict:
    rows = batch(rows=8)
    mine = {name: x[4 * rank : 4 * rank + 4] for name, x in rows.items()}
    return mine if rank == 0 else {name: x for name, x in mine.items() if name != "blur"}


def take_part(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", f"file://{folder}/meet", limit, world_size=2, rank=rank)
    found = {}
    for name in NAMES:
        model = Model()
        balancing = balance(model, name, every=1)
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        torch.manual_seed(rank)  # what is drawn differs, what comes out must not
        for _ in range(2):  # the wrapper complains at the second step if the first left it waiting
            balancing.zero_grad(set_to_none=True)
            model.zero_grad(set_to_none=True)
            with wrapped.no_sync() if balancing.averages_gradients else nullcontext():
                balancing.add(wrapped(halves(rank)), 1.0, torch.Tensor.backward)
            balancing.finish()
        own = torch.tensor([float(p.grad) for p in balancing.parameters()])
        found[name] = (flat(model.gradients(), ""), own, balancing.figures())
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()
    os._exit(0)  # at the interpreter's own end gloo's threads sometimes abort it, when all has been said


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("processes")
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=take_part, args=(rank, folder)) for rank in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    assert [run.exitcode for run in runs] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_processes_agree_to_the_bit(name: str, found: list[dict]) -> None:
    assert torch.equal(found[0][name][0], found[1][name][0])
    cosine = [{k: v for k, v in run[name][2].items() if k.startswith("cosine")} for run in found]
    assert cosine[0] == cosine[1] and len(cosine[0]) == 3


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "GradVac", "Mean"])
def test_two_processes_are_two_parts_of_one(name: str, found: list[dict]) -> None:
    model = Model()
    balancing = balance(model, name)
    torch.manual_seed(0)  # as the first process
    for _ in range(2):
        expected = flat(step(model, balancing, halves(0), halves(1)), "")
    torch.testing.assert_close(found[0][name][0], expected, rtol=1e-5, atol=1e-6)


def test_log_variances_and_measured_cosines_are_averaged(found: list[dict]) -> None:
    model = Model()
    balancing = balance(model, "uncertainty", every=1)
    step(model, balancing, halves(0), halves(1))
    expected = torch.tensor([float(p.grad) for p in balancing.parameters()])
    for run in found:
        torch.testing.assert_close(run["uncertainty"][1], expected, rtol=1e-5, atol=1e-6)
        for key, value in balancing.figures().items():
            assert run["uncertainty"][2][key] == pytest.approx(value, abs=1e-5)
