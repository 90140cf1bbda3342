"""Methods that weight the losses: against plain autograd, numbers by hand and a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from small_model import NAMES, Model, balance, batch, flat, step

from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing.contract import BALANCINGS, LossTerm
from vision_mtl.training.optimiser import build_optimiser
from vision_mtl.training.options import Optim

WEIGHTS = {"digits": 0.5, "cars": 3.0, "blur": 1.25}
SUMS = ("equal", "fixed", "uncertainty", "dwa")


def plain(model: Model, rows: dict, weights: dict[str, float]) -> dict:
    """Return the gradients of the weighted sum by one backward pass."""
    model.zero_grad(set_to_none=True)
    sum(weights.get(name, 1.0) * loss for name, loss in model.losses(rows).items()).backward()
    return model.gradients()


@pytest.mark.parametrize(("name", "weights"), [("equal", {}), ("fixed", WEIGHTS), ("dwa", WEIGHTS)])
def test_the_gradient_is_that_of_the_weighted_sum(name: str, weights: dict) -> None:
    model, rows = Model(dtype=torch.float64), batch(dtype=torch.float64)
    expected = plain(model, rows, weights)
    found = step(model, balance(model, name, weights), rows)  # dwa gives equal weights until two windows are over
    for key, gradient in expected.items():
        if gradient is None:
            assert found[key] is None and key == "trunk.unused"
        else:
            torch.testing.assert_close(found[key], gradient, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", SUMS)
def test_two_micro_batches_equal_one_batch(name: str) -> None:
    model, rows = Model(dtype=torch.float64), batch(dtype=torch.float64)
    halves = [{n: x[:2] for n, x in rows.items()}, {n: x[2:] for n, x in rows.items()}]
    whole, split = (step(model, balance(model, name), *micro_batches) for micro_batches in ([rows], halves))
    torch.testing.assert_close(flat(split, ""), flat(whole, ""), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*SUMS, "PCGrad", "Mean", "GradVac"])
def test_an_absent_loss_changes_no_weight_of_its_head(name: str, model: Model) -> None:
    balancing = balance(model, name)
    both = torch.nn.ModuleDict({"model": model, "balancing": balancing})
    optimiser = build_optimiser(both, Optim(weight_decay=0.5))
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    step(model, balancing, batch(seed=1))
    optimiser.step()  # so that AdamW has a momentum, which could still move an absent head
    its = [p for n, p in both.named_parameters() if "heads.cars" in n or n.endswith("_cars")]
    assert len(its) == (3 if name == "uncertainty" else 2)
    before = [p.detach().clone() for p in its]
    step(model, balancing, batch(("digits", "blur")))
    assert all(p.grad is None for p in its)
    optimiser.step()
    assert all(torch.equal(p, old) for p, old in zip(its, before, strict=True))
    assert model.heads["digits"].weight.grad is not None


def test_uncertainty_by_hand(model: Model) -> None:
    weights = {"digits": 2.0}
    balancing = balance(model, "uncertainty", weights, initial=0.4)
    rows = batch()
    losses = {name: float(loss.detach()) for name, loss in model.losses(rows).items()}
    factor = {"digits": 1.0, "cars": 1.0, "blur": 0.5}  # blur is a squared error: eq. 7
    steepness = {n: weights.get(n, 1.0) * factor[n] * math.exp(-0.4) for n in NAMES}
    expected = plain(model, rows, steepness)
    found = step(model, balancing, rows)
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-5, atol=1e-7)
    for name in NAMES:
        wanted = weights.get(name, 1.0) * (0.5 - factor[name] * math.exp(-0.4) * losses[name])
        assert float(balancing.get_parameter(f"log_variance_{name}").grad) == pytest.approx(wanted, rel=1e-5)
        assert balancing.scalars()[f"weight.{name}"] == pytest.approx(steepness[name])


def test_uncertainty_converges_to_its_closed_form(model: Model) -> None:
    balancing = balance(model, "uncertainty")
    optimiser = torch.optim.SGD(balancing.parameters(), lr=0.5)
    rows = batch()
    for _ in range(300):
        step(model, balancing, rows)  # the model's weights do not change
        optimiser.step()
    for name, loss in model.losses(rows).items():  # d/ds of c exp(-s) L + s/2 is 0 at s = log(2 c L)
        settled = math.log(float(loss.detach()) * (1 if name == "blur" else 2))
        assert balancing.get_parameter(f"log_variance_{name}").item() == pytest.approx(settled, abs=1e-3)


def slow_dwa(history: list[dict[str, float]], window: int, temperature: float) -> dict[str, float]:
    """Return the weights after the losses of `history`, one mapping a step."""
    previous: dict[str, float] = {}
    rates = dict.fromkeys(NAMES, 1.0)
    for start in range(0, len(history) - window + 1, window):
        for name in NAMES:
            seen = [losses[name] for losses in history[start : start + window] if name in losses]
            if seen:
                mean = sum(seen) / len(seen)
                rates[name] = mean / previous[name] if name in previous else 1.0
                previous[name] = mean
    powers = {name: math.exp(rate / temperature) for name, rate in rates.items()}
    return {name: len(NAMES) * power / sum(powers.values()) for name, power in powers.items()}


def test_dwa_against_a_slow_loop_with_an_absent_loss(model: Model) -> None:
    balancing = balance(model, "dwa", window=2, temperature=0.7)
    generator, history = torch.Generator().manual_seed(1), []
    for number in range(9):
        names = NAMES if number not in (0, 4, 5) else ("digits", "blur")  # half of window 0, all of window 2
        values = {name: float(torch.rand((), generator=generator)) + 0.1 for name in names}
        history.append(values)
        for share in (0.25, 0.75):  # micro-batches of unequal size
            losses = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
            balancing.add(losses, share, torch.Tensor.backward)
        balancing.finish()
        expected = slow_dwa(history, 2, 0.7)
        assert balancing.scalars() == {f"weight.{n}": pytest.approx(expected[n], rel=1e-5) for n in NAMES}
    assert sum(expected.values()) == pytest.approx(3) and max(expected.values()) > 1.1


def test_dwa_counts_a_step_once_for_any_number_of_micro_batches() -> None:
    """All labels of `cars` are in one of four micro-batches, so its loss there is 4 times its share of the step."""
    model = Model()
    whole, split = (balance(model, "dwa", window=1, temperature=0.5) for _ in range(2))
    for losses in ({"digits": 1.0, "cars": 0.8}, {"digits": 0.9, "cars": 0.2}, {"digits": 0.7}):
        values = {name: torch.tensor(value, requires_grad=True) for name, value in losses.items()}
        whole.add(values, 1.0, torch.Tensor.backward)
        for micro_batch in range(4):
            own = {n: v * 4 if n == "cars" else v for n, v in values.items() if n == "digits" or micro_batch == 1}
            split.add(own, 0.25, torch.Tensor.backward)
        for balancing in (whole, split):
            balancing.finish()
        torch.testing.assert_close(split.previous, whole.previous)
        assert split.scalars() == {key: pytest.approx(value, rel=1e-5) for key, value in whole.scalars().items()}
    assert whole.previous.tolist() == pytest.approx([0.7, 0.2, 0])


def test_dwa_is_restored_from_its_buffers(model: Model) -> None:
    first = balance(model, "dwa", window=2)
    for seed in range(5):
        step(model, first, batch(seed=seed))
    second = balance(model, "dwa", window=2)
    second.load_state_dict(first.state_dict())
    for balancing in (first, second):
        step(model, balancing, batch(seed=5))
    assert first.scalars() == second.scalars() and first.scalars()["weight.digits"] != 1


def test_every_registered_name_is_built_and_logs_its_weights(model: Model) -> None:
    assert BALANCINGS.names() == sorted(SUMS)
    for name in SUMS:
        assert set(balance(model, name).scalars()) == {f"weight.{n}" for n in NAMES}


def test_mistakes_are_named(model: Model) -> None:
    with pytest.raises(UserError, match=r"'cars' asks for 3.*--balance\.name fixed"):
        balance(model, "equal", WEIGHTS | {"digits": 1.0})
    with pytest.raises(UserError, match=r"unknown option of balance 'dwa' 'windw'\. Did you mean 'window'"):
        balance(model, "dwa", windw=3)
    with pytest.raises(UserError, match=r"balance\.kwargs\.window of 'dwa' must be above 0; found 0"):
        balance(model, "dwa", window=0)
    with pytest.raises(UserError, match=r"unknown loss 'digit'\. Did you mean 'digits'"):
        balance(model).add({"digit": torch.ones(())}, 1.0, torch.Tensor.backward)
    with pytest.raises(UserError, match=r"weight of 'cars' must be 0 or more; found -1"):
        LossTerm(name="cars", weight=-1)
    with pytest.raises(ValueError, match="each once"):
        balance(Model(names=()))
