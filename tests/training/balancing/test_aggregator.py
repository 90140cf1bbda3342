"""torchjd's aggregators: planted conflicts by hand, micro-batches, absent losses, memory, state, errors."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from small_model import NAMES, Model, balance, batch, flat, step
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchjd import aggregation

from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing import aggregator as aggregator_file
from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import BALANCINGS, LossTerm
from vision_mtl.training.balancing.fixed import Fixed
from vision_mtl.training.balancing.options import BASES, SMOOTHED, Balance, aggregator_names, balance_names

FREE = ["AlignedMTL", "ConFIG", "DualProj", "ExcessMTL", "GradDrop", "GradVac", "IMTLG", "MGDA", "Mean", "NashMTL"]
FREE += ["PCD", "PCGrad", "Random", "Sum", "UPGrad"]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "CRMOGMWeighting": {"weighting": "MGDA", "epsilon": 0.01, "alpha": 0.5},
    "Constant": {"weights": [1, 2, 3]},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "TrimmedMean": {"trim_number": 1},
}
PACKAGES = {"UPGrad": "qpsolvers quadprog", "DualProj": "qpsolvers quadprog", "NashMTL": "cvxpy ecos"}
PACKAGES |= {"CAGrad": "cvxpy clarabel"}


def needs(name: str) -> pytest.MarkDecorator:
    missing = [package for package in PACKAGES.get(name, "").split() if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"pip install {' '.join(missing)}")


def each(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=needs(name)) for name in names]


class Opposed(nn.Module):
    """A shared linear layer, and two tasks on disjoint rows whose gradients on it are given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1, bias=False)

    def losses(self) -> dict[str, Tensor]:
        rows = torch.tensor([[1.0, 0.0, 2.0], [-2.0, 1.0, 0.0]])
        outputs = self.layer(rows)
        return {"a": outputs[0].sum(), "b": outputs[1].sum()}


def aggregate(name: str, **kwargs: Any) -> tuple[Tensor, dict[str, float]]:
    model = Opposed()
    terms = [LossTerm(name="a"), LossTerm(name="b")]
    balancing = make_balancing(name, terms, list(model.parameters()), [], kwargs, 1)
    balancing.add(model.losses(), 1.0, torch.Tensor.backward)
    balancing.finish()
    return model.layer.weight.grad[0], balancing.scalars()


def test_a_planted_conflict_by_hand() -> None:
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([-2.0, 1.0, 0.0])  # a.b = -2, |a|^2 = |b|^2 = 5
    mean, figures = aggregate("Mean")
    torch.testing.assert_close(mean, (a + b) / 2)
    assert figures["cosine.a.b"] == pytest.approx(-2 / 5) and figures["weight.a"] == 0.5
    surgery, figures = aggregate("PCGrad")
    torch.testing.assert_close(surgery, (a + b * 2 / 5) + (b + a * 2 / 5))  # each less its part against the other
    assert figures["weight.a"] == pytest.approx(1.4)


def test_the_mean_can_hurt_a_loss_where_upgrad_does_not() -> None:
    pytest.importorskip("qpsolvers")
    model = Opposed()
    large, small = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([-2.0, 1.0, 0.0])
    terms = [LossTerm(name="a", weight=10.0), LossTerm(name="b")]
    found = {}
    for name in ("Mean", "UPGrad"):
        model.zero_grad(set_to_none=True)
        balancing = make_balancing(name, terms, list(model.parameters()), [], {})
        balancing.add(model.losses(), 1.0, torch.Tensor.backward)
        balancing.finish()
        found[name] = model.layer.weight.grad[0].clone()
    assert float(found["Mean"] @ small) < 0
    for gradient in (large, small):
        # 1e-3: torchjd adds 1e-4 to the Gramian's diagonal, so the cone is met up to about that
        assert float(torch.cosine_similarity(found["UPGrad"], gradient, dim=0)) >= -1e-3


@pytest.mark.parametrize("name", each(FREE + sorted(ARGUMENTS)))
def test_every_aggregator_gives_a_finite_gradient(name: str, model: Model) -> None:
    balancing = balance(model, name, **ARGUMENTS.get(name, {}))
    for seed in range(3):
        gradients = step(model, balancing, batch(seed=seed))
        assert gradients.pop("trunk.unused") is None  # no loss depends on it, so weight decay must not change it
        for (key, gradient), parameter in zip(
            gradients.items(), [p for n, p in model.named_parameters() if n != "trunk.unused"], strict=True
        ):
            assert gradient.shape == parameter.shape and bool(gradient.isfinite().all()), key
        assert float(flat(gradients).norm()) > 0


def test_the_names_are_torchjds_classes() -> None:
    classes = [getattr(aggregation, n) for n in aggregation.__all__ if n not in BASES]
    real = [c.__name__ for c in classes if isinstance(c, type) and issubclass(c, aggregation.Aggregator)]
    assert sorted([*real, SMOOTHED]) == aggregator_names() == sorted(FREE + list(ARGUMENTS))


def test_sum_is_plain_backward_and_heads_see_their_own_task(model: Model) -> None:
    rows = batch()
    sum(model.losses(rows).values()).backward()
    expected = model.gradients()
    found = step(model, balance(model, "Sum"), rows)
    torch.testing.assert_close(found, expected)
    heads = step(model, balance(model, "Random"), rows)
    torch.testing.assert_close(flat(heads, "heads"), flat(expected, "heads"))


@pytest.mark.parametrize("name", each(["PCGrad", "UPGrad", "GradVac", "ConFIG"]))
def test_two_micro_batches_equal_one_batch(name: str) -> None:
    model, rows = Model(dtype=torch.float64), batch(dtype=torch.float64)
    halves = [{n: x[:2] for n, x in rows.items()}, {n: x[2:] for n, x in rows.items()}]
    found = []
    for micro_batches in ([rows], halves):
        torch.manual_seed(3)  # PCGrad draws a random order
        found.append(flat(step(model, balance(model, name), *micro_batches), ""))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", each(["Mean", "MGDA", "UPGrad", "Constant", "CAGrad"]))
def test_an_absent_loss_is_left_out_of_the_aggregation(name: str, model: Model) -> None:
    rows = batch(("digits", "blur"))
    small = Model(("digits", "blur"))
    small.load_state_dict(model.state_dict(), strict=False)
    kwargs = ARGUMENTS.get(name, {})
    fewer = {"weights": [1, 3]} if name == "Constant" else kwargs
    three, two = balance(model, name, **kwargs), balance(small, name, **fewer)
    torch.testing.assert_close(flat(step(model, three, rows)), flat(step(small, two, rows)))
    assert {k: pytest.approx(v) for k, v in two.scalars().items()} == three.scalars()


def test_a_single_loss_keeps_its_gradient_and_no_loss_leaves_none(model: Model) -> None:
    rows = batch(("cars",))
    model.losses(rows)["cars"].backward()
    expected = flat(model.gradients())
    balancing = balance(model, "Krum", n_byzantine=0)
    torch.testing.assert_close(flat(step(model, balancing, rows)), expected)
    assert all(gradient is None for gradient in step(model, balancing, {}).values())


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    trunk = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    balancing = make_balancing("Sum", [LossTerm(name="a")], list(trunk.parameters()), [], {})
    images = torch.rand(1, 3, 5, 6)
    trunk(images).square().mean().backward()
    expected = trunk.weight.grad.clone()
    trunk.zero_grad(set_to_none=True)
    balancing.add({"a": trunk(images).square().mean()}, 1.0, torch.Tensor.backward)
    balancing.finish()
    torch.testing.assert_close(trunk.weight.grad, expected)
    assert trunk.weight.grad.stride() == trunk.weight.stride()


class Large(TorchDispatchMode):
    """Collects the storages of tensors of at least `numel` elements that are created within it."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.storages = numel, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= 4 * self.numel:
                self.storages.add(tensor.untyped_storage().data_ptr())
        return out


@pytest.mark.parametrize("name", each(["PCGrad", "UPGrad", "MGDA", "Sum"]))
def test_the_gradient_matrix_is_allocated_once(name: str) -> None:
    names = [f"task{i}" for i in range(8)]
    model = Model(names, width=64)
    balancing = balance(model, name, every=1)
    step(model, balancing, batch(names))
    place = balancing.gradients.matrix.data_ptr()
    size = sum(p.numel() for p in model.trunk.parameters())
    assert balancing.gradients.matrix.shape == (8, size) and balancing.gradients.matrix.dtype == torch.float32
    with Large(2 * size) as large:  # 2: a gradient or an aggregation is one row
        step(model, balancing, batch(names))
        step(model, balancing, batch(names[1:6]))
    assert large.storages <= {place} and balancing.gradients.matrix.data_ptr() == place
    assert "aggregator" not in " ".join(balancing.state_dict())


LASTING = [(name, {}) for name in ("GradVac", "PCD", "ExcessMTL", "CRMOGMWeighting", "NashMTL")]
LASTING += [("ExcessMTL", {"n_warmup_steps": warm}) for warm in (2, 3, 5)]  # stopped after, at, within warm-up
LASTING += [("NashMTL", {"update_weights_every": 2})]


@pytest.mark.parametrize(("name", "options"), [pytest.param(*given, marks=needs(given[0])) for given in LASTING])
def test_a_state_over_time_is_restored_from_a_checkpoint(name: str, options: dict, model: Model) -> None:
    def make() -> Any:
        return balance(model, name, **ARGUMENTS.get(name, {}), **options)

    def continued(balancing: Any) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.cat([flat(step(model, balancing, batch(seed=seed))) for seed in range(3, 7)])

    first = make()
    for seed in range(3):
        step(model, first, batch(seed=seed))
    state = {key: value.clone() for key, value in first.state_dict().items()}
    second = make()
    second.load_state_dict(dict(state))
    expected = continued(first)
    torch.testing.assert_close(continued(second), expected, rtol=0, atol=0)
    assert not torch.equal(continued(make()), expected)
    second.load_state_dict(dict(state))  # into a balancing that has a state already
    assert int(second.step) == 3
    torch.testing.assert_close(continued(second), expected, rtol=0, atol=0)


def test_a_non_finite_loss_reaches_the_gradient(model: Model) -> None:
    rows = batch()
    rows["cars"][0, 0] = float("nan")
    assert not bool(flat(step(model, balance(model, "AlignedMTL"), rows)).isfinite().all())


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("UPGrat", {}, r"unknown balance 'UPGrat'\. Did you mean 'UPGrad'"),
        ("CAGrad", {}, r"'CAGrad' needs c: give for example --balance\.kwargs\.c 0\.4"),
        ("FairGrad", {}, r"needs alpha: give for example --balance\.kwargs\.alpha 1\.0"),
        ("Krum", {}, r"needs n_byzantine: give for example --balance\.kwargs\.n_byzantine 1"),
        ("TrimmedMean", {}, r"needs trim_number: .*--balance\.kwargs\.trim_number 1"),
        ("Constant", {}, r"needs weights: give for example --balance\.kwargs\.weights \[1,1,1\]"),
        (SMOOTHED, {}, r"needs weighting: give for example --balance\.kwargs\.weighting UPGrad"),
        (SMOOTHED, {"weighting": "GradDrop"}, r"'GradDrop' has no weights to smooth"),
        (SMOOTHED, {"weighting": "PCGrat"}, r"unknown aggregator of torchjd 'PCGrat'\. Did you mean 'PCGrad'"),
        (SMOOTHED, {"weighting": "CAGrad"}, r"'CAGrad' needs c: give for example --balance\.kwargs\.c 0\.4"),
        (SMOOTHED, {"weighting": "MGDA", "epsilom": 1}, r"unknown argument of MGDA 'epsilom'"),
        (SMOOTHED, {"weighting": "MGDA", "alpha": 2}, r"balance\.kwargs of 'CRMOGMWeighting': .*alpha"),
        ("MGDA", {"epsilom": 1}, r"unknown argument of MGDA 'epsilom'\. Did you mean 'epsilon'"),
        ("NashMTL", {"n_tasks": 3}, r"unknown argument of NashMTL 'n_tasks'"),
        ("Krum", {"n_byzantine": -1}, r"balance\.kwargs of 'Krum': n_byzantine must be non-negative"),
        ("Krum", {"n_byzantine": "few"}, r"balance\.kwargs of 'Krum'"),
        (
            "Constant",
            {"weights": [1, 2]},
            r"weights must be a list of 3 numbers, for digits, cars, blur; found \[1, 2",
        ),
        ("ConFIG", {"pref_vector": 3}, r"pref_vector must be a list of 3 numbers"),
    ],
)
def test_mistakes_are_named(name: str, kwargs: dict, message: str, model: Model) -> None:
    with pytest.raises(UserError, match=message):
        balance(model, name, **kwargs)


def test_too_few_losses_and_missing_parameters_are_errors(model: Model) -> None:
    with pytest.raises(UserError, match=r"'TrimmedMean' failed on 2 losses.*at least 3 rows"):
        step(model, balance(model, "TrimmedMean", trim_number=1), batch(("digits", "cars")))
    with pytest.raises(UserError, match=r"'Sum' combines gradients of shared parameters, but none is trainable"):
        make_balancing("Sum", [LossTerm(name="a")], [], [], {})
    model.losses(batch())["cars"].backward()
    with pytest.raises(RuntimeError, match=r"zero_grad\(set_to_none=True\) before a step"):
        balance(model, "Sum").add(model.losses(batch()), 1.0, torch.Tensor.backward)


def test_a_missing_package_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None if name in ("qpsolvers", "quadprog") else name)
    with pytest.raises(UserError, match=r"'UPGrad' needs packages that are missing: pip install qpsolvers quadprog$"):
        balance(model, "UPGrad")


def test_a_solver_that_fails_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("Failed to solve the quadratic programming problem.")

    monkeypatch.setattr(aggregator_file, "combine", fail)
    with pytest.raises(UserError, match=r"'Sum' failed on 3 losses: Failed to solve"):
        step(model, balance(model, "Sum"), batch())


def test_options_know_the_names() -> None:
    assert {"equal", "fixed", "uncertainty", "dwa", "UPGrad"} <= set(balance_names())
    assert Balance(name="PCGrad").kwargs == {}
    with pytest.raises(UserError, match=r"unknown balance 'uncertanty'\. Did you mean 'uncertainty'"):
        Balance(name="uncertanty")
    with pytest.raises(UserError, match=r"conflicts_every_steps must be 0 \(never\) or more; found -1"):
        Balance(conflicts_every_steps=-1)


def test_options_accept_a_method_that_a_plugin_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BALANCINGS._found, "mine", Fixed)
    assert Balance(name="mine").name == "mine" and "mine" in balance_names()


@pytest.mark.slow  # an interpreter that imports torch
def test_options_import_torchjd_only_for_its_names() -> None:
    code = (
        "import sys; from vision_mtl.training.balancing.options import Balance; Balance(name='dwa'); "
        "assert 'torchjd' not in sys.modules; Balance(name='Mean'); assert 'torchjd' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_list_of_numbers_is_in_the_order_of_the_losses(model: Model) -> None:
    balancing = balance(model, "Constant", weights=[1, 2, 3])
    step(model, balancing, batch())
    assert balancing.scalars() == dict(zip([f"weight.{n}" for n in NAMES], (1.0, 2.0, 3.0), strict=True))
