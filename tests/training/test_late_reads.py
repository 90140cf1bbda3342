"""Reading the losses of several steps together changes no result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from tests.training.test_diagnosis import break_steps
from vision_mtl.core.errors import UserError
from vision_mtl.training.loop import Trainer
from vision_mtl.training.objective import StepLoss
from vision_mtl.training.step_guard import NonFiniteLoss
from vision_mtl.training.step_record import Progress, StepRecord

Seen = list[tuple[Progress, StepRecord]]


def fitted(trainer: Trainer, read_every: int, stop: Callable[[], bool] = lambda: False) -> Seen:
    trainer.guard.read_every, seen = read_every, []
    trainer.fit(lambda progress, record: seen.append((Progress(**vars(progress)), record)), stop)
    return seen


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    moments = {
        f"{names[parameter]}.{name}": value
        for parameter, kept in trainer.optimiser.state.items()
        for name, value in kept.items()
    }
    return {name: value.clone() for name, value in {**trainer.model.state_dict(), **moments}.items()}


def same(one: Trainer, other: Trainer) -> bool:
    first, second = state(one), state(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def shown(seen: Seen) -> list[tuple[object, ...]]:
    return [(p.step, p.images_seen, p.skipped, r.step, r.loss, r.shown, r.gradient_norm, r.skipped) for p, r in seen]


@pytest.mark.slow
def test_losses_read_late_equal_those_read_at_once(make_trainer) -> None:
    at_once, late = make_trainer(steps=7), make_trainer(steps=7)
    expected, seen = fitted(at_once, 1), fitted(late, 3)
    assert shown(seen) == shown(expected) and same(at_once, late)
    assert [record.is_latest for _, record in seen] == [False, False, True, False, False, True, True]
    assert all(record.is_latest for _, record in expected)


def test_nothing_is_read_from_the_device_between_two_reads(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, looked = make_trainer(steps=6), []
    guard, original = trainer.guard, trainer.guard._read
    monkeypatch.setattr(guard, "_read", lambda steps: looked.append([s.step for s in steps]) or original(steps))
    fitted(trainer, 4)
    assert looked == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("broken", [{0}, {2}, {3, 4}, {1, 6}])
def test_a_non_finite_step_is_skipped_at_any_position(make_trainer, broken: set[int]) -> None:
    found = []
    for read_every in (1, 4):
        trainer = make_trainer(steps=7, non_finite="skip")
        break_steps(trainer, broken)
        found.append((trainer, shown(fitted(trainer, read_every))))
    (at_once, expected), (late, seen) = found
    # repr: the loss of a broken step is NaN, which is not equal to itself
    assert repr(seen) == repr(expected) and [row[3] for row in seen if row[7]] == sorted(broken)
    assert same(at_once, late) and all(v.isfinite().all() for v in state(late).values() if v.is_floating_point())


def test_finite_steps_reset_the_count_of_skips_in_a_row(make_trainer) -> None:
    trainer = make_trainer(steps=9, non_finite="skip", max_skipped=1)
    break_steps(trainer, {1, 5, 8})
    fitted(trainer, 3)
    assert trainer.progress.skipped == 3 and trainer.progress.skipped_in_a_row == 1


def test_a_run_stops_at_its_first_non_finite_step_with_the_weights_before_it(make_trainer) -> None:
    whole, trainer, seen = make_trainer(steps=9, warmup_ratio=0.0), make_trainer(steps=9, warmup_ratio=0.0), []
    with pytest.raises(KeyboardInterrupt):
        fitted(whole, 1, stop=lambda: whole.progress.step == 5)
    break_steps(trainer, {5})
    trainer.guard.read_every = 8
    with pytest.raises(NonFiniteLoss, match="became non-finite at step 5; loss of") as caught:
        trainer.fit(lambda progress, record: seen.append(record.step))
    assert seen == [0, 1, 2, 3, 4] and trainer.progress.step == 5 and trainer.progress.images_seen == 5 * 8
    assert same(whole, trainer)
    assert torch.equal(caught.value.evidence["indices"], trainer.feed.evidence(5)["indices"])


def test_a_failing_step_is_retried_after_the_steps_before_it_are_read(make_trainer) -> None:
    trainer, seen, tries = make_trainer(steps=9), [], []
    original = trainer.objective.measure

    def measure(*given) -> StepLoss:
        tries.append(trainer.progress.step)
        if trainer.progress.step == 2:
            raise UserError("no space")
        return original(*given)

    trainer.objective.measure, trainer.guard.read_every = measure, 8
    with pytest.raises(UserError, match="no space"):
        trainer.fit(lambda progress, record: seen.append((record.step, record.is_latest)))
    assert seen == [(0, False), (1, True)] and tries == [0, 1, 2, 2]
    assert trainer.failed_cleanly and trainer.progress.step == 2


def test_a_request_to_stop_does_not_wait_for_the_next_read(make_trainer) -> None:
    trainer, asked = make_trainer(steps=50), []
    with pytest.raises(KeyboardInterrupt):
        fitted(trainer, 40, stop=lambda: asked.append(0) or trainer.progress.step >= 3)
    assert trainer.progress.step == 3


def test_max_seconds_stops_training_at_a_read(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("vision_mtl.training.loop.time.perf_counter", lambda: float(next(clock)))
    trainer = make_trainer(steps=None, max_seconds=2.0)
    seen = fitted(trainer, 3)
    assert trainer.progress.seconds == 2 and [record.step for _, record in seen] == list(range(6))


@pytest.mark.parametrize(("options", "expected"), [({}, 5), ({"ema_decay": 0.5}, 1)])
def test_steps_that_cannot_be_undone_are_read_at_once(make_trainer, options: dict, expected: int) -> None:
    made = make_trainer(**options)
    given = {f.name: getattr(made, f.name) for f in fields(Trainer) if f.init and f.name != "read_every"}
    assert made.guard.read_every == 1  # reading is free on the CPU
    assert Trainer(**given, read_every=5).guard.read_every == expected
