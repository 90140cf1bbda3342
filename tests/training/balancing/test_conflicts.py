"""Cosines between the losses' gradients: by hand, over micro-batches, for both families, with unchanged gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_model import NAMES, Model, balance, batch, flat, step

from vision_mtl.training.balancing.conflicts import cosines, cosines_over_steps


def slow_cosines(model: Model, rows: dict) -> dict[str, float]:
    gradients = {}
    for name in rows:
        model.zero_grad(set_to_none=True)
        model.losses({name: rows[name]})[name].backward()
        gradients[name] = flat(model.gradients())
    return {
        f"cosine.{a}.{b}": float(torch.cosine_similarity(gradients[a], gradients[b], dim=0))
        for a, b in itertools.combinations([n for n in NAMES if n in rows], 2)
    }


def test_cosines_by_hand() -> None:
    found = cosines(torch.tensor([[3.0, 0.0], [-1.0, 0.0], [2.0, 2.0], [0.0, 0.0]]))
    half = 2**-0.5
    expected = torch.tensor([[1, -1, half], [-1, 1, -half], [half, -half, 1]])
    torch.testing.assert_close(found[:3, :3], expected)
    assert bool(found[3].isnan().all()) and bool(found[:, 3].isnan().all())


@pytest.mark.parametrize("name", ["equal", "dwa", "PCGrad"])
def test_cosines_are_measured_every_n_steps_over_all_micro_batches(name: str, model: Model) -> None:
    balancing = balance(model, name, every=2)
    seen = []
    for seed in range(3):
        rows = batch(NAMES if seed < 2 else ("cars", "digits"), seed)
        expected = slow_cosines(model, rows)
        step(model, balancing, {n: x[:2] for n, x in rows.items()}, {n: x[2:] for n, x in rows.items()})
        found = {k: v for k, v in balancing.scalars().items() if k.startswith("cosine")}
        seen.append(found)
        if seed != 1:
            assert found == {key: pytest.approx(value, abs=1e-5) for key, value in expected.items()}
    assert seen[1] == seen[0] != seen[2]  # the last measurement is repeated until the next one


def test_measuring_changes_no_gradient(model: Model) -> None:
    rows = batch()
    plain, measured = (step(model, balance(model, "fixed", every=every), rows) for every in (0, 1))
    assert torch.equal(flat(plain, ""), flat(measured, ""))
    assert plain["trunk.unused"] is measured["trunk.unused"] is None


def test_records_become_arrays() -> None:
    records = [
        {"kind": "train", "step": 1, "loss": 0.3},
        {"kind": "train", "step": 10, "cosine.a.b": -0.5},
        {"kind": "train", "step": 20, "cosine.a.b": 0.25, "cosine.c.a": 0.5},
    ]
    steps, values = cosines_over_steps(records, ["a", "b", "c"])
    assert steps.tolist() == [10, 20] and values.shape == (2, 3, 3)
    np.testing.assert_array_equal(values[1], [[1, 0.25, 0.5], [0.25, 1, np.nan], [0.5, np.nan, 1]])
    assert values[0, 1, 0] == -0.5 and np.isnan(values[0, 0, 2])
    assert cosines_over_steps([], ["a"])[1].shape == (0, 1, 1)
