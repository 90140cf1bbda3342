"""The loop: it learns, repeats itself exactly, goes on where it stopped, and says what broke."""

import math

import pytest
import torch

from vision_mtl.data.pool import Pool
from vision_mtl.training.checkpoint import load_optimiser, optimiser_tensors
from vision_mtl.training.loop import Trainer
from vision_mtl.training.objective import step_loss
from vision_mtl.training.step_guard import NonFiniteLoss
from vision_mtl.training.step_record import Progress


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mean_loss(trainer) -> float:
    """Over the same images and damage each time: one batch of eight scatters too much to compare with another."""
    batches = [trainer.feed.at(step, 1)[0][0] for step in range(10)]
    with torch.no_grad():
        return sum(step_loss(trainer.model, trainer.objective, batch).total.item() for batch in batches) / 10


@pytest.mark.slow
def test_the_first_loss_is_chance(make_trainer) -> None:
    """Of 64 images: chance is measured on one damage of each, and of eight images that scatters by an eighth."""
    assert mean_loss(make_trainer(images=64)) == pytest.approx(1, abs=0.1)


def test_training_lowers_the_loss(make_trainer) -> None:
    trainer = make_trainer(steps=60, images=8, learning_rate=0.1, warmup_ratio=0.1)
    before = mean_loss(trainer)
    trainer.fit(lambda *_: None)
    assert mean_loss(trainer) < 0.8 * before


def test_every_step_is_counted_and_hooked(make_trainer) -> None:
    trainer, seen = make_trainer(steps=5), []
    trainer.fit(lambda progress, record: seen.append((progress.step, record.step, progress.images_seen)))
    assert seen == [(i + 1, i, 8 * (i + 1)) for i in range(5)]
    assert trainer.progress.seconds > 0


def test_two_runs_are_one(make_trainer) -> None:
    first, second = make_trainer(), make_trainer()
    first.fit(lambda *_: None)
    second.fit(lambda *_: None)
    assert equal(weights(first), weights(second))


@pytest.mark.parametrize("backbone", ["test_resnet", "vit_tiny_patch16_224"])
def test_going_on_equals_never_having_stopped(make_trainer, backbone: str) -> None:
    whole = make_trainer(backbone, steps=6, ema_decay=0.5)
    whole.fit(lambda *_: None)

    first = make_trainer(backbone, steps=6, ema_decay=0.5)

    class Stop(Exception):
        pass

    def stop(progress: Progress, record: object) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop):
        first.fit(stop)
    second = make_trainer(backbone, steps=6, ema_decay=0.5)
    second.model.load_state_dict(first.model.state_dict())
    second.average.module.load_state_dict(first.average.module.state_dict())
    tensors = optimiser_tensors(first.optimiser)
    load_optimiser(second.optimiser, {name.removeprefix("optimiser."): value for name, value in tensors.items()})
    second.progress = Progress(**vars(first.progress))
    torch.manual_seed(12345)  # whatever happened in between
    second.fit(lambda *_: None)
    assert equal(weights(whole), weights(second))
    assert equal(dict(whole.average.module.state_dict()), dict(second.average.module.state_dict()))


@pytest.mark.slow
def test_parts_of_a_batch_add_up_to_it(make_trainer) -> None:
    """A ViT has no BatchNorm, so a step in two parts is the step in one, to rounding."""
    whole, parts = (
        make_trainer("vit_tiny_patch16_224", steps=2),
        make_trainer("vit_tiny_patch16_224", steps=2, accumulate=2),
    )
    for trainer in (whole, parts):
        trainer.optim = trainer.optim.__class__(**{**vars(trainer.optim), "learning_rate": 0.01})
        trainer.fit(lambda *_: None)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=2e-4, rtol=1e-2)


def test_the_rate_follows_the_schedule(make_trainer) -> None:
    trainer, rates = make_trainer(steps=10, warmup_ratio=0.2, learning_rate=0.32), []
    trainer.fit(lambda progress, record: rates.append(record.learning_rate))
    peak = 0.32 * 8 / 256
    expected = [0, peak / 2] + [peak * 0.5 * (1 + math.cos(math.pi * (i / 10 - 0.2) / 0.8)) for i in range(2, 10)]
    assert rates == pytest.approx(expected)


def test_time_ends_training_and_hooks_do_not_count(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("vision_mtl.training.loop.time.perf_counter", lambda: float(next(clock)))
    trainer = make_trainer(steps=None, max_seconds=5.0)
    trainer.fit(lambda *_: [next(clock) for _ in range(100)])
    assert trainer.progress.step == 5 and trainer.progress.seconds == 5


def test_the_averaged_weights_are_scored(make_trainer) -> None:
    trainer = make_trainer(steps=3, ema_decay=0.9)
    trainer.fit(lambda *_: None)
    assert trainer.scored_model is trainer.average.module
    assert not equal(weights(trainer), dict(trainer.scored_model.state_dict()))


def test_a_gradient_beyond_the_limit_is_clipped(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    trainer = make_trainer(steps=2, clip_norm=1e-3)
    step = trainer.optimiser.step
    monkeypatch.setattr(
        trainer.optimiser,
        "step",
        lambda: (
            norms.append(
                torch.nn.utils.get_total_norm([p.grad for p in trainer.model.parameters() if p.grad is not None])
            ),
            step(),
        ),
    )
    trainer.fit(lambda *_: None)
    assert all(norm.item() == pytest.approx(1e-3, rel=1e-3) for norm in norms)


def test_a_loss_that_is_no_number_names_its_pretext_and_keeps_the_weights(make_trainer, pool: Pool) -> None:
    trainer = make_trainer(names=("downsample", "rotation"))
    before = weights(trainer)
    trainer.objective.chance_losses["rotation"] = float("nan")
    with pytest.raises(
        NonFiniteLoss,
        match=r"at step 0; loss of: rotation; images: bundled/photos::.*\. Lower --optim",
    ) as caught:
        trainer.fit(lambda *_: None)
    after = weights(trainer)
    parameters = [name for name, _ in trainer.model.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in parameters)
    evidence = caught.value.evidence
    assert torch.equal(evidence["images"], pool.gather(evidence["indices"])) and len(evidence["indices"]) == 8


def test_a_head_without_a_row_is_left_alone(make_trainer) -> None:
    """Its gradient is None, so weight decay and momentum do not move it."""
    trainer = make_trainer(steps=3)
    assigned = []
    original = trainer.objective.mixture.assign
    trainer.objective.mixture.assign = lambda keys, usable: assigned.append(original(keys, usable) * 0) or assigned[-1]
    before = weights(trainer)
    trainer.fit(lambda *_: None)
    after = weights(trainer)
    moved = {
        name.split(".")[1]
        for name in before
        if name.startswith("heads.") and not torch.equal(before[name], after[name])
    }
    assert moved == {"grid_mask"}


def test_bf16_trains_and_keeps_float32_weights(make_trainer) -> None:
    trainer = make_trainer(precision="bf16", steps=3)
    trainer.fit(lambda progress, record: math.isfinite(record.loss) or pytest.fail("not finite"))
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_half_precision_is_the_models_alone(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = make_trainer(precision="bf16", steps=1), []
    for method in ("prepare", "measure"):
        original = getattr(trainer.objective, method)

        def looked(*given, original=original, **named):
            seen.append(torch.is_autocast_enabled("cpu"))
            return original(*given, **named)

        monkeypatch.setattr(trainer.objective, method, looked)
    dtypes = []
    trainer.model.backbone.register_forward_hook(lambda module, given, maps: dtypes.append(maps[-1].dtype))
    trainer.fit(lambda progress, record: None)
    assert seen == [False, False] and torch.bfloat16 in dtypes


def test_steps_one_by_one_are_those_of_fit(make_trainer) -> None:
    """Without a run folder and without a hook; each step's loss is read at once, wherever it is computed."""
    whole, single = make_trainer(steps=4), make_trainer(steps=4)
    single.guard.read_every = 3
    seen: list[float] = []
    whole.fit(lambda progress, record: seen.append(record.loss))
    single.model.train()
    assert [single.step().loss for _ in range(4)] == seen
    assert equal(weights(whole), weights(single)) and single.progress.images_seen == whole.progress.images_seen
    single.fit()  # is over already
    assert single.progress.step == 4


def test_a_trainer_is_built_of_its_parts(make_trainer) -> None:
    made = make_trainer(names=("grid_mask",), steps=2)
    trainer = Trainer(made.model, made.objective, made.feed, made.optim, made.accelerator)
    trainer.fit()
    assert trainer.progress.step == 2 and trainer.strategy.alone
    assert Trainer(made.model, made.objective, made.feed, made.optim).accelerator.num_processes == 1
