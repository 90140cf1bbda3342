"""Repair and tasks in one pass equal the separate passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.loader import TaskLoader, labelled_rows
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.mixing import Labels
from vision_mtl.training.objective import Objective, step_loss
from vision_mtl.training.repair import PretextObjective, RepairBatch, RepairFeed, head_specs
from vision_mtl.training.supervised import (
    TaskBatch,
    TaskFeed,
    TaskObjective,
    task_head_specs,
    task_losses,
)

NAMES = ("letter", "size", "seen")
PRETEXT_NAMES = ("grid_mask", "decolorise", "rotation")


def options_of(pool: Pool, names: tuple[str, ...]) -> dict[str, Task]:
    return {name: Task(source="made", kind=pool.targets[name].kind, augment="none") for name in names}


def build(pool: Pool, decoder: str, names: tuple[str, ...] = NAMES) -> tuple[SharedModel, dict[str, Objective]]:
    torch.manual_seed(0)
    pretexts = {name: PRETEXTS.get(name)() for name in PRETEXT_NAMES}
    net = Backbone("vit_tiny_patch16_224", image_size=(32, 32))
    targets, train = {name: pool.targets[name] for name in names}, pool.split == 0
    made = DECODERS.get(decoder)().build(MapSpec(net.channels, net.map_sizes, (32, 32)))
    model = SharedModel(net, made, head_specs(pretexts, 3), task_head_specs(targets))
    for parameter in [*model.task_heads.parameters(), *model.heads.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    repair = PretextObjective(Mixture(pretexts), dict.fromkeys(PRETEXT_NAMES, 0.5))
    return model, {"repair": repair, "tasks": TaskObjective(task_losses(options_of(pool, names), targets, train))}


def batches(pool: Pool, names: tuple[str, ...] = NAMES) -> dict[str, tuple[RepairBatch | TaskBatch, float]]:
    damaged, labelled = torch.arange(0, 60, 4), torch.arange(1, 60, 5)
    found = labelled_rows(pool, names, labelled)
    labels = {name: Labels(rows, pool.targets[name].gather(labelled[rows])) for name, rows in found.items()}
    counts = {name: float(len(own.rows)) for name, own in labels.items()}
    return {
        "repair": ((pool.gather(damaged), Keys(0, 0, damaged)), 1.0),
        "tasks": (TaskBatch(pool.gather(labelled), labelled, labels, counts), 1.0),
    }


def gradients(model: SharedModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("order", [("repair", "tasks"), ("tasks", "repair")], ids=lambda order: order[0])
@pytest.mark.parametrize("decoder", ["stages", "transformer"])
def test_one_pass_equals_two_separate_objectives(decoder: str, order: tuple[str, str], task_pool: Pool) -> None:
    model, members = build(task_pool, decoder)
    batch = batches(task_pool)
    together = JointObjective({name: members[name] for name in order})
    joint = step_loss(model, together, {name: batch[name] for name in order})
    joint.total.backward()
    found = gradients(model)
    separate = [step_loss(model, members[name], *batch[name]) for name in order]
    for loss in separate:
        loss.total.backward()
    expected = gradients(model)
    assert set(joint.losses) == {"repair", *NAMES} and joint.rows == sum(loss.rows for loss in separate)
    for loss in separate:
        for name, value in loss.losses.items():
            assert joint.losses[name].item() == pytest.approx(value.item(), rel=1e-5)
        assert all(torch.allclose(torch.stack(joint.shown[n]), torch.stack(v)) for n, v in loss.shown.items())
    assert found.keys() == expected.keys()
    largest = max(value.norm() for value in expected.values())
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * max(value.norm(), 1e-2 * largest), name


def test_rows_are_shifted_by_the_images_before_them(task_pool: Pool) -> None:
    _, members = build(task_pool, "stages")
    batch = batches(task_pool)
    repair, tasks = (members[name].prepare(*batch[name]) for name in ("repair", "tasks"))
    found = JointObjective(members).prepare(batch)
    start = len(repair.images)
    assert torch.equal(found.images[:start], repair.images) and torch.equal(found.images[start:], tasks.images)
    assert torch.equal(found.drop_draw, torch.cat((repair.drop_draw, tasks.drop_draw)))
    assert [(r.key, r.rows) for r in found.requests[: len(repair.requests)]] == [
        (r.key, r.rows) for r in repair.requests
    ]
    for shifted, own in zip(found.requests[len(repair.requests) :], tasks.requests, strict=True):
        assert shifted.key == own.key and torch.equal(shifted.rows, own.rows + start)
        assert torch.equal(found.images[shifted.rows], tasks.images[own.rows])
    other = JointObjective({"tasks": members["tasks"], "repair": members["repair"]}).prepare(
        {"tasks": batch["tasks"], "repair": batch["repair"]}
    )
    masked = [(a, b) for a, b in zip(other.requests[len(NAMES) :], repair.requests, strict=True) if b.mask is not None]
    assert masked and all(torch.equal(a.mask, b.mask) for a, b in masked)
    assert all(a.rows == slice(b.rows.start + 12, b.rows.stop + 12) for a, b in masked)


def test_the_decoder_drops_nothing_of_labelled_images(task_pool: Pool) -> None:
    _, members = build(task_pool, "stages")
    found = JointObjective(members).prepare(batches(task_pool))
    dense = next(request for request in found.requests if request.name == "seen")
    assert bool((found.drop_draw[dense.rows] == 1).all()) and found.drop_draw[: dense.rows.min()].std() > 0.1


def test_a_task_may_be_called_as_a_pretext_and_both_are_shown(task_pool: Pool) -> None:
    members = build(task_pool, "stages")[1]
    renamed = TaskObjective({"rotation": members["tasks"].losses["letter"]})
    together = JointObjective({"repair": members["repair"], "tasks": renamed})
    batch = batches(task_pool)
    labelled, _ = batch["tasks"]
    labels = labelled.labels["letter"]
    tasks = TaskBatch(labelled.images, labelled.index, {"rotation": labels}, {"rotation": float(len(labels.rows))})
    prepared = together.prepare({"repair": batch["repair"], "tasks": (tasks, 1.0)})
    predictions = {"task:rotation": [torch.zeros(len(labels.rows), 3)]}
    for part in prepared.data["repair"].requests:
        shape = (4,) if part.name == "rotation" else (2 if part.name == "decolorise" else 3, 32, 32)
        predictions[part.name] = [torch.zeros(len(part.images), *shape)]
    found = together.measure(predictions, prepared, 0.0).means()
    assert set(found) <= set(together.shown)  # what another process may have is called as it would be here
    assert found["tasks.rotation"] == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-5)
    assert found["rotation"] == pytest.approx(torch.tensor(4.0).log().item() / 0.5, rel=1e-5)


def test_a_task_called_as_the_repair_is_refused(task_pool: Pool) -> None:
    members = build(task_pool, "stages")[1]
    renamed = TaskObjective({"repair": members["tasks"].losses["letter"]})
    with pytest.raises(UserError, match=r"'repair' is taken .* rename the task"):
        JointObjective({"repair": members["repair"], "tasks": renamed})


@pytest.mark.parametrize(("damaged", "labelled", "parts"), [(5, 11, 4), (2, 6, 2), (3, 4, 3)])
def test_members_of_uneven_size_have_equally_many_micro_batches(
    damaged: int, labelled: int, parts: int, task_pool: Pool
) -> None:
    model, members = build(task_pool, "stages")
    rows = {name: task_pool.indices("train", task=name) for name in NAMES}
    loader = TaskLoader(task_pool, options_of(task_pool, NAMES), TaskBatches(rows, labelled, 0), 0, 1)
    repair = RepairFeed(task_pool, Batches(torch.arange(60), damaged, 0), 0, torch.device("cpu"))
    feed = JointFeed({"repair": repair, "tasks": TaskFeed(loader, torch.device("cpu"))})
    model.eval()
    with torch.no_grad():
        totals = []
        for count in (1, parts):
            found = feed.at(0, count)
            assert len(found) == count
            losses = [step_loss(model, JointObjective(members), batch) for batch, _ in found]
            totals.append(sum(loss.total.item() for loss in losses))
            assert sum(len(batch["repair"][0][0]) for batch, _ in found) == damaged
            assert sum(len(batch["tasks"][0].images) for batch, _ in found) == labelled
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    assert feed.images_per_step == damaged + labelled
    evidence = feed.evidence(3)
    feed.close()
    assert set(evidence) == {"repair.indices", "repair.images", "tasks.indices", "tasks.images"}
    assert torch.equal(evidence["tasks.images"], task_pool.gather(evidence["tasks.indices"]))
