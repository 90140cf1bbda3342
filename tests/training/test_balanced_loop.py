"""The loop on several tasks: balanced in every way, slower in its shallow layers, still where it is frozen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vision_mtl.core.run import Run
from vision_mtl.models.depth import freeze, last_stage
from vision_mtl.recipes.fit import fit, resume
from vision_mtl.training.balancing.options import balance_names
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import parameter_groups
from vision_mtl.training.options import Track
from vision_mtl.training.step_record import Progress, StepRecord

NEEDED = {  # arguments that a torchjd aggregator has no default for
    "CAGrad": {"c": 0.4},
    "Constant": {"weights": [1.0, 2.0, 1.0]},
    "CRMOGMWeighting": {"weighting": "UPGrad"},
    "ExcessMTL": {},
    "FairGrad": {"alpha": 1.0},
    "GradDrop": {},
    "Krum": {"n_byzantine": 0},
    "TrimmedMean": {"trim_number": 1},
}
THREE = ("letter", "size", "seen")


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def fitted(trainer: Trainer) -> list[StepRecord]:
    records: list[StepRecord] = []
    trainer.fit(lambda progress, record: records.append(record))
    trainer.feed.close()
    return records


@pytest.mark.parametrize("accumulate", [1, 3])
def test_equal_is_the_plain_sum(make_task_trainer, accumulate: int) -> None:
    plain, equal = (make_task_trainer("test_vit", balance=name, accumulate=accumulate) for name in (None, "equal"))
    losses = [[record.loss for record in fitted(trainer)] for trainer in (plain, equal)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0]
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(equal)[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [None, "uncertainty", "dwa", "UPGrad"])
def test_a_step_in_parts_is_the_step_whole(make_task_trainer, name: str | None) -> None:
    """With 12 images in 6 parts most parts lack some task."""
    whole, parts = (
        make_task_trainer("test_vit", balance=name, accumulate=count, steps=2, clip_norm=0.0) for count in (1, 6)
    )
    assert any(len(batch.labels) < 5 for batch, _ in parts.feed.at(0, 6))
    gradients = []
    for trainer in (whole, parts):
        trainer.optimiser.step = lambda: None
        fitted(trainer)
        own = dict(trainer.model.named_parameters())
        own |= dict(trainer.balancing.named_parameters()) if trainer.balancing is not None else {}
        gradients.append({key: p.grad for key, p in own.items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and (name != "uncertainty" or len(gradients[0]) > 5)
    largest = max(value.norm() for value in gradients[0].values())
    for key, value in gradients[0].items():
        assert (gradients[1][key] - value).norm() <= 1e-3 * max(value.norm(), 1e-2 * largest), key


@pytest.mark.parametrize("name", [n for n in balance_names() if n != "fixed"])
def test_every_balancing_takes_two_steps(make_task_trainer, name: str) -> None:
    trainer = make_task_trainer("test_vit", THREE, name, kwargs=NEEDED.get(name, {}), shared="last", steps=2)
    before = weights(trainer)
    records = fitted(trainer)
    assert len(records) == 2 and all(math.isfinite(record.loss) and record.gradient_norm > 0 for record in records)
    after = weights(trainer)
    for part in (
        "backbone.model.blocks.0",
        "task_heads.task_letter.project",
        "task_heads.task_size.project",
        "decoder",
    ):
        moved = [not torch.equal(before[key], after[key]) for key in before if key.startswith(part)]
        assert any(moved), part


def test_log_variances_move_and_a_resumed_run_takes_them_over(make_task_trainer, tmp_path: Path) -> None:
    def trainer_of() -> Trainer:
        return make_task_trainer("test_resnet", THREE, "uncertainty", learning_rate=0.2, ema_decay=0.9, steps=6)

    def run_of(name: str) -> Run:
        run = Run(tmp_path / name, "finetune")
        run.folder.mkdir()
        return run

    whole = trainer_of()
    fit(run_of("whole"), whole, Track(tensorboard=False), {}, {}, [])
    whole.feed.close()
    moved = {name: p.item() for name, p in whole.balancing.named_parameters()}
    assert len(moved) == 3 and all(abs(value) > 1e-3 for value in moved.values())

    first, run = trainer_of(), run_of("parts")

    def interrupt(progress: Progress, _: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(run, first, Track(tensorboard=False), {}, {"best": {"": 3}}, [(2, interrupt)])
    first.feed.close()
    second, memory = trainer_of(), {"best": {}}
    torch.manual_seed(99)
    resume(second, run, memory)
    assert memory["best"] == {"": 3} and second.progress.step == 3 and int(second.balancing.step) == 3
    for name, p in first.balancing.named_parameters():
        assert torch.equal(p, second.balancing.get_parameter(name)) and p.item() != 0
    fit(run, second, Track(tensorboard=False), {}, memory, [])
    second.feed.close()
    for name, value in whole.balancing.state_dict().items():
        assert torch.equal(value, second.balancing.state_dict()[name]), name
    for one, other in ((whole.model, second.model), (whole.average.module, second.average.module)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_half_the_squared_error_is_not_halved_again(make_task_trainer) -> None:
    """Kendall's eq. 7 is exp(-s) times half the squared error, which is what a number's loss is already."""
    from vision_mtl.data.options import Task
    from vision_mtl.recipes.supervised import build_balancing
    from vision_mtl.training.balancing.options import Balance

    trainer = make_task_trainer("test_resnet", THREE)
    trainer.feed.close()
    tasks = {name: Task(source="made", kind=trainer.model.task_specs[name].kind) for name in THREE}
    balancing = build_balancing(Balance(name="uncertainty"), trainer.model, tasks)
    assert balancing.figures() == {f"weight.{name}": 1.0 for name in THREE}


def scales(trainer: Trainer) -> dict[str, float]:
    """Parameter -> its group's `lr_scale`."""
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    groups = trainer.optimiser.param_groups
    found = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(found) == sorted(names.values())  # each once
    return {names[id(p)]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_shallow_layers_learn_more_slowly(make_task_trainer, backbone: str) -> None:
    trainer = make_task_trainer(backbone, layer_decay=0.5, steps=2)
    found = scales(trainer)
    assert {found[name] for name in found if not name.startswith("backbone.")} == {1.0}
    trunk = {name.removeprefix("backbone.model."): s for name, s in found.items() if name.startswith("backbone.model.")}
    assert max(trunk.values()) == 1.0
    stages = [f"blocks.{i}." if backbone == "test_vit" else f"layer{i + 1}." for i in range(4)]
    deepest = [max([s for name, s in trunk.items() if name.startswith(stage)], default=0) for stage in stages]
    present = [scale for scale in deepest if scale]
    assert len(present) > 2 and present == sorted(set(present))
    first = "patch_embed.proj.weight" if backbone == "test_vit" else "conv1.weight"
    first = next(name for name in trunk if name.startswith(first.split(".")[0]) and name.endswith("weight"))
    assert trunk[first] == min(trunk.values()) <= 0.5 ** len(present)

    records = fitted(trainer)
    for group in trainer.optimiser.param_groups:
        assert group["lr"] == pytest.approx(records[-1].learning_rate * group.get("lr_scale", 1.0))


def test_tokens_and_vectors_do_not_decay_with_layers_either(make_task_trainer) -> None:
    trainer = make_task_trainer("test_vit")
    trainer.feed.close()
    decays = []
    for layer_decay in (1.0, 0.7):
        groups = parameter_groups(trainer.model, 0.05, layer_decay)
        names = {id(p): name for name, p in trainer.model.named_parameters()}
        decays.append({names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]})
    assert decays[0] == decays[1] and set(decays[0].values()) == {0.0, 0.05}
    assert decays[1]["backbone.model.cls_token"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("which", ["early", "all"])
def test_what_is_frozen_stays_in_eval_mode_and_does_not_move(make_task_trainer, which: str) -> None:
    trainer = make_task_trainer("test_resnet", THREE, steps=3)
    net = trainer.model.backbone
    late = last_stage(net.model)
    trainer.model.frozen = freeze(net, list(late.parameters()) if which == "early" else [])
    trainer = Trainer(
        trainer.model, trainer.objective, trainer.feed, trainer.optim, trainer.accelerator, trainer.layout, seed=0
    )
    modes: dict[str, set[bool]] = {}
    norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, module in norms.items():
        module.register_forward_hook(lambda m, *_, name=name: modes.setdefault(name, set()).add(m.training))
    before = weights(trainer)
    trainer.fit(lambda *_: trainer.model.eval() and trainer.model.train())  # as a validation in between does
    trainer.feed.close()
    inside = {name for name, module in norms.items() if module in set(late.modules())}
    trained = inside if which == "early" else set()
    assert inside and modes == {name: {name in trained} for name in norms}
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    beginnings = tuple(f"backbone.{name}." for name, m in net.named_modules() if m is late)
    own = {name for name in moved if name.startswith("backbone.")}
    assert all(name.startswith(beginnings) for name in own)
    assert bool(own) == (which == "early") and {"task_heads.task_size.project.weight"} <= moved


def test_a_frozen_module_does_not_still_what_it_holds(make_task_trainer) -> None:
    """A ViT's own tokens are frozen, and so is its patch embedding; its last block is trained, and in training mode."""
    trainer = make_task_trainer("test_vit", THREE)
    trainer.feed.close()
    model, vit = trainer.model, trainer.model.backbone.model
    late = last_stage(vit)
    model.frozen = freeze(model.backbone, list(late.parameters()))
    model.train()
    assert not vit.training and not vit.patch_embed.proj.training and late is vit.blocks[-1]
    assert all(module.training for module in late.modules() if list(module.parameters()))
    assert model.decoder.training and model.task_heads.training


def test_two_runs_are_one_whatever_was_drawn_before(make_task_trainer) -> None:
    first, second = make_task_trainer(), make_task_trainer()
    torch.rand(100)
    fitted(first), fitted(second)
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())
