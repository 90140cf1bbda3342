"""The search for the fastest settings: what it takes, what it leaves alone. No time is measured: clocks are fakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import Optim, build_optimiser
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tuning import (
    Choice,
    Trials,
    alternatives,
    choose,
    compiling_pays,
    default_choice,
    rebuilt,
    run_seconds,
    tune,
)

START = Choice(
    precision="fp32", channels_last=False, compile=False, optimiser="auto", allocator="system", num_threads=4
)
OPEN = {"num_threads": [2, 1], "channels_last": [True, False], "precision": ["fp32", "bf16"], "allocator": ["keep"]}


def costs(**seconds: dict) -> Callable[[Sequence[Choice]], list[float]]:
    """A step takes 1 s times the factor of each setting's value; 1 where none is given."""

    def measure(choices: Sequence[Choice]) -> list[float]:
        found = []
        for choice in choices:
            value = 1.0
            for name, factors in seconds.items():
                value *= factors.get(getattr(choice, name), 1.0)
            found.append(value)
        return found

    return measure


def test_each_setting_gets_its_fastest_value() -> None:
    measure = costs(num_threads={2: 0.7, 1: 0.8}, channels_last={True: 1.2}, precision={"bf16": 0.5})
    best, seconds = choose(START, OPEN, measure, now=lambda: 0.0)
    assert best == replace(START, num_threads=2, precision="bf16")
    assert seconds == pytest.approx(0.35)


def test_a_gain_within_what_repeats_differ_by_changes_nothing() -> None:
    assert choose(START, OPEN, costs(channels_last={True: 0.98}), now=lambda: 0.0) == (START, 1.0)
    assert choose(START, OPEN, costs(channels_last={True: 0.96}), now=lambda: 0.0)[0].channels_last


def test_a_setting_that_fails_is_not_taken() -> None:
    measure = costs(precision={"bf16": float("inf")}, allocator={"keep": 0.5})
    assert choose(START, OPEN, measure, now=lambda: 0.0)[0] == replace(START, allocator="keep")


def test_what_is_not_tried_in_time_keeps_its_default() -> None:
    clock = itertools.count(0.0, 15.0)  # the beginning, then a look before each setting: 15, 30 seconds later
    found = choose(START, OPEN, costs(num_threads={2: 0.5}, precision={"bf16": 0.5}), now=lambda: next(clock))
    assert found == (replace(START, num_threads=2), 0.5)


def test_only_what_is_left_open_is_tried_and_precision_only_if_asked() -> None:
    same = alternatives(Runtime(tune="same_precision"), START, "cpu")
    assert "precision" not in same and same["num_threads"] == [2, 1] and same["optimiser"] == ["foreach"]
    assert alternatives(Runtime(tune="any_precision"), START, "cpu")["precision"] == ["fp32", "bf16"]
    fixed = Runtime(tune="any_precision", precision="fp32", channels_last="off", num_threads=4, allocator="keep")
    assert alternatives(fixed, START, "cpu").keys() == {"optimiser"}
    assert alternatives(Runtime(tune="any_precision"), START, "mps").keys() == {"channels_last"}


def test_compiling_must_be_won_back() -> None:
    # half the time of a step: 1,200 s become 600 + the cost; a gain below 3 % of the run is none
    assert compiling_pays(1.0, 0.5, 500.0, 1200.0) and not compiling_pays(1.0, 0.5, 580.0, 1200.0)
    assert not compiling_pays(1.0, float("inf"), 1.0, 1200.0)
    assert run_seconds(Optim(steps=100, max_seconds=None), 0.5) == 50
    assert run_seconds(Optim(steps=100, max_seconds=20.0), 0.5) == 20


def test_tuning_leaves_network_and_random_numbers_as_they_were(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(names=("grid_mask",))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    clock = itertools.count()
    best, seconds = tune(trainer, Runtime(tune="any_precision"), now=lambda: float(next(clock)))
    # every step takes one tick of this clock, so nothing gains
    assert best == default_choice(Runtime(), trainer.model.backbone, "cpu") and seconds == 1
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())
    assert trainer.progress.step == 0 and not trainer.optimiser.state
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_a_step_that_fails_takes_for_ever(make_trainer: Callable[..., Trainer], monkeypatch) -> None:
    def fail(self: Trainer) -> None:
        raise RuntimeError("out of memory")

    trainer = make_trainer(names=("grid_mask",))
    monkeypatch.setattr(Trainer, "_take_step", fail)
    choice = default_choice(Runtime(), trainer.model.backbone, "cpu")
    assert Trials(trainer, Runtime(), "cpu", lambda: 0.0)([choice]) == [float("inf")]


def test_the_settings_reach_the_trainer_and_either_kernel_takes_the_same_step(make_trainer) -> None:
    trainers = []
    for kernel in ("fused", "foreach"):
        trainer = make_trainer(names=("grid_mask",))
        start = default_choice(Runtime(precision="fp32"), trainer.model.backbone, "cpu")
        choice = replace(start, optimiser=kernel, channels_last=False)
        trainers.append(rebuilt(trainer, choice, Runtime(), "cpu"))
        assert trainers[-1].layout == torch.contiguous_format and trainers[-1].kernel == kernel
        for _ in range(3):
            trainers[-1].step()
    fused, foreach = (trainer.optimiser.param_groups[0] for trainer in trainers)
    assert fused["fused"] and foreach["foreach"] and not foreach["fused"]
    for one, other in zip(trainers[0].model.parameters(), trainers[1].model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert build_optimiser(trainers[0].model, Optim()).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channel_last": True}, "channels_last"),
        ({"precision": "fp16"}, "runtime.tuned.precision must be fp32 or bf16; found 'fp16'"),
        ({"num_threads": True}, "runtime.tuned.num_threads must be a whole number"),
        ({"compile": 1}, "runtime.tuned.compile must be true or false"),
        ({"optimiser": None}, "runtime.tuned.optimiser must be auto or fused or foreach"),
    ],
)
def test_a_choice_written_by_hand_is_checked(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Choice.of({**START.to_json(), **change})
    assert Choice.of(START.to_json()) == START


def test_a_choice_must_be_whole() -> None:
    with pytest.raises(UserError, match="precision is missing"):
        Choice.of({key: value for key, value in START.to_json().items() if key != "precision"})
