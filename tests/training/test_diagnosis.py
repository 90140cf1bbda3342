"""What watches a run: broken steps are named and, if so asked, leave no trace; losses that blow up are said once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.core.memory import is_out_of_memory
from vision_mtl.core.run import Run
from vision_mtl.recipes.fit import fit, resume
from vision_mtl.training.diagnosis import what_fits
from vision_mtl.training.loop import Trainer
from vision_mtl.training.loss_watch import LossWatch
from vision_mtl.training.objective import StepLoss
from vision_mtl.training.options import Track
from vision_mtl.training.step_guard import NonFiniteLoss
from vision_mtl.training.supervised import TaskObjective

SIZE_OF_33 = 99.0


def break_image(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of image 33 NaN in every batch."""
    original = TaskObjective._values
    offset, scale = trainer.feed.pool.targets["size"].unit
    standardised = torch.tensor((SIZE_OF_33 - offset) / scale, dtype=torch.float32)

    def values(self: TaskObjective, name: str, outputs: torch.Tensor, labels) -> torch.Tensor:
        found = original(self, name, outputs, labels)
        return torch.where(labels.values == standardised, torch.nan, found) if name == "size" else found

    monkeypatch.setattr(TaskObjective, "_values", values)


def break_steps(trainer: Trainer, steps: set[int]) -> None:
    """Make the losses and the batch statistics of these steps NaN."""
    original = trainer.objective.measure

    def measure(predictions, prepared, progress: float) -> StepLoss:
        loss = original(predictions, prepared, progress)
        if trainer.progress.step in steps and trainer.model.training:
            trainer.model.get_buffer("backbone.model.bn1.running_mean").data.fill_(torch.nan)
            loss = StepLoss({n: v * torch.nan for n, v in loss.losses.items()}, loss.shown, loss.rows)
        return loss

    trainer.objective.measure = measure


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    modules = {"model": trainer.model, "average": trainer.average, "balancing": trainer.balancing}
    return {f"{n}.{k}": v.clone() for n, m in modules.items() if m is not None for k, v in m.state_dict().items()}


def advice(trainer: Trainer) -> str:
    """Return the advice after the first step ran out of memory."""
    return what_fits(
        trainer.model,
        trainer.objective,
        trainer.feed,
        0,
        optim=trainer.optim,
        optimiser=trainer.optimiser,
        layout=trainer.layout,
        autocast=trainer.accelerator.autocast,
    )


def test_the_image_with_a_non_finite_loss_is_named(make_task_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_task_trainer(tasks=("letter", "size"), steps=20)
    break_image(trainer, monkeypatch)
    with pytest.raises(NonFiniteLoss, match=r"loss of: size; images: 33\. Lower"):
        trainer.fit(lambda *_: None)
    assert trainer.model.training
    trainer.feed.close()


def test_broken_weights_are_distinguished_from_broken_images(make_task_trainer) -> None:
    trainer = make_task_trainer(tasks=("letter",))
    assert trainer._explain(0) == "no single image causes it"
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    assert (
        trainer._explain(0)
        == "all 12 images of the step have a non-finite loss, so the cause is the weights, not the images"
    )
    trainer.feed.close()


@pytest.mark.parametrize("balance", ["dwa", "uncertainty"])
def test_a_skipped_step_leaves_no_trace(make_task_trainer, balance: str) -> None:
    kwargs = {"window": 1} if balance == "dwa" else {}
    options = {"kwargs": kwargs, "steps": 5, "ema_decay": 0.5, "non_finite": "skip"}
    trainer = make_task_trainer("test_resnet", ("letter", "size"), balance, **options)
    break_steps(trainer, {2, 3})
    states, skipped = [], []
    trainer.fit(lambda progress, record: (states.append(state(trainer)), skipped.append(record.skipped is not None)))
    assert skipped == [False, False, True, True, False] and trainer.progress.skipped == 2
    assert trainer.progress.step == 5 and trainer.progress.skipped_in_a_row == 0
    for number in (2, 3):
        different = [name for name, value in states[1].items() if not torch.equal(value, states[number][name])]
        assert different == []
    assert any(not torch.equal(value, states[4][name]) for name, value in states[3].items())
    assert all(value.isfinite().all() for name, value in states[4].items() if value.is_floating_point())
    trainer.feed.close()


def test_too_many_skipped_steps_in_a_row_stop_the_run(make_task_trainer) -> None:
    trainer = make_task_trainer("test_resnet", ("letter",), non_finite="skip", max_skipped=2, steps=9)
    break_steps(trainer, {1, 3, 4, 5, 6})
    with pytest.raises(NonFiniteLoss, match=r"non-finite at step 5; .* after 2 skipped steps in a row"):
        trainer.fit(lambda *_: None)
    assert trainer.progress.skipped == 3
    trainer.feed.close()


def test_skips_are_warned_of_and_counted_over_a_resume(make_task_trainer, tmp_path: Path) -> None:
    run, memory = Run(tmp_path, "finetune"), {}
    for stop in (4, None):
        trainer = make_task_trainer("test_resnet", ("letter",), non_finite="skip", max_skipped=9, steps=8)
        break_steps(trainer, {1, 2, 3, 5, 6})
        run = Run(tmp_path, "finetune")
        resume(trainer, run, memory)

        def interrupt(progress, _, stop=stop) -> None:
            if progress.step == stop:
                raise KeyboardInterrupt

        try:
            fit(run, trainer, Track(tensorboard=False), {}, memory, [(8, interrupt)])
        except KeyboardInterrupt:
            assert stop == 4
        trainer.feed.close()
    one_by_one = [warning for warning in run.warnings if "was skipped" in warning]
    assert [warning.split()[1] for warning in one_by_one] == ["1", "2", "3"] and "only counted" in one_by_one[-1]
    assert "5 of 8 steps were skipped: they became non-finite." in run.warnings


def test_a_loss_that_blows_up_is_reported_once() -> None:
    watch = LossWatch()
    means = [(1, 0.7), (10, 1.0), (20, 0.8), (30, 2.9), (40, 3.1), (50, 9.0)]
    warnings = [watch.look(step, {"cars": value, "pets": float("nan")}) for step, value in means]
    assert [len(texts) for texts in warnings] == [0, 0, 0, 0, 1, 0]
    assert "the loss of cars has blown up: 3.1 at step 40, 1 at the start" in warnings[4][0]
    assert LossWatch(**vars(watch)).look(60, {"cars": 99.0}) == []


def test_an_early_loss_of_zero_is_not_compared_with() -> None:
    watch = LossWatch()
    assert [watch.look(step, {"a": value}) for step, value in enumerate((0.0, 0.0, 0.0, 5.0))] == [[]] * 4


@pytest.mark.parametrize(("largest", "parts"), [(6, 2), (3, 4), (1, 12)])
def test_micro_batches_that_fit_are_found_by_trying(
    make_task_trainer, monkeypatch: pytest.MonkeyPatch, largest: int, parts: int
) -> None:
    """On a GPU with memory for `largest` of the twelve images."""
    trainer = make_task_trainer(tasks=("letter",))
    original = type(trainer.model).forward

    def forward(self, images: torch.Tensor, *others: object) -> object:
        if len(images) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return original(self, images, *others)

    monkeypatch.setattr(type(trainer.model), "forward", forward)
    text = advice(trainer)
    if parts == 12:
        assert "not even two images at a time fit (BatchNorm needs two)" in text
    else:
        assert f"{12 // parts} images at a time fit. Give --optim.accumulate {parts}" in text
        assert f"--optim.batch_size {12 // parts}" in text
    assert all(p.grad is None for p in trainer.model.parameters())
    trainer.feed.close()


def test_every_micro_batch_of_the_step_must_fit(make_task_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batches differ, above all in a mixture: here only the second of two does not fit."""
    trainer = make_task_trainer("test_resnet", ("letter",), steps=6)
    original, heavy = type(trainer.model).forward, trainer.feed.at(0, 2)[1][0].images

    def forward(self, images: torch.Tensor, *others: object) -> object:
        if images.shape == heavy.shape and torch.equal(images, heavy):
            raise MemoryError
        return original(self, images, *others)

    monkeypatch.setattr(type(trainer.model), "forward", forward)
    assert "--optim.accumulate 4" in advice(trainer)
    trainer.feed.close()


def test_running_out_of_memory_saves_the_state_before_the_step(
    make_task_trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = make_task_trainer("test_resnet", ("letter",), steps=6)
    original = type(trainer.model).forward

    def forward(self, images: torch.Tensor, *others: object) -> object:
        found = original(self, images, *others)  # running means have changed by then
        if trainer.progress.step == 2 and len(images) > 6:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return found

    monkeypatch.setattr(type(trainer.model), "forward", forward)
    before: list[dict[str, torch.Tensor]] = []

    def remember(progress, _) -> None:
        before.append(state(trainer))

    run = Run(tmp_path, "finetune")
    with pytest.raises(UserError, match=r"out of memory at step 2, which is saved\. Measured just now: 6 images"):
        fit(run, trainer, Track(tensorboard=False), {}, {}, [(6, remember)])
    trainer.feed.close()
    monkeypatch.undo()
    again = make_task_trainer("test_resnet", ("letter",), steps=6)
    resume(again, run, {})
    assert again.progress.step == 2
    assert all(torch.equal(value, before[-1][name]) for name, value in state(again).items())
    again.feed.close()


def test_other_errors_are_not_out_of_memory() -> None:
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))
