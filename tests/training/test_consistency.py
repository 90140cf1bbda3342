"""Consistency: which predictions become labels, what trains, and which images are seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.consistency import CONSISTENCY, ConsistencyBatch, ConsistencyFeed, ConsistencyObjective
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.loss_watch import LossWatch
from vision_mtl.training.mixing import Labels
from vision_mtl.training.objective import step_loss
from vision_mtl.training.repair import PretextObjective, head_specs
from vision_mtl.training.supervised import (
    TaskBatch,
    TaskFeed,
    TaskLoss,
    TaskObjective,
    task_head_specs,
)

KINDS = {"letter": "single_label", "marks": "multi_label"}
LABELLED = {"letter": torch.arange(10), "marks": torch.arange(0, 20, 2)}


def logits(*rows: tuple[float, ...]) -> Tensor:
    """Return logits whose softmax is `rows`."""
    return torch.tensor(rows).log()


def batch_of(rows: dict[str, Tensor], counts: dict[str, float], images: int = 3) -> ConsistencyBatch:
    views = torch.rand(2, images, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return ConsistencyBatch(views[0], views[1], torch.arange(images), rows, counts)


def measured(objective: ConsistencyObjective, batch: ConsistencyBatch, **outputs: Tensor) -> tuple[Tensor, dict]:
    prepared = objective.prepare(batch, 1.0)
    found = objective.measure({f"task:{name}:{CONSISTENCY}": [own] for name, own in outputs.items()}, prepared)
    return found.losses[CONSISTENCY], found.shown


def test_confident_weak_predictions_label_the_strong_view_by_hand() -> None:
    weak = logits((0.96, 0.03, 0.01), (0.9, 0.05, 0.05), (0.02, 0.03, 0.95))
    strong = logits((0.5, 0.25, 0.25), (0.1, 0.8, 0.1), (0.6, 0.2, 0.2))
    outputs = torch.cat((weak, strong)).requires_grad_()
    objective = ConsistencyObjective({"letter": TaskLoss("single_label")}, {"letter": 3.0}, 0.95, weight=2.0)
    loss, shown = measured(objective, batch_of({"letter": torch.arange(3)}, {"letter": 6.0}), letter=outputs)
    expected = -(math.log(0.5) + math.log(0.2))  # the second image is not confident
    assert loss.item() == pytest.approx(2 * 3 * expected / 6, rel=1e-5)
    assert shown["letter"][0].item() == pytest.approx(expected, rel=1e-5) and shown["letter"][1].item() == 3
    loss.backward()
    assert torch.equal(outputs.grad[:3], torch.zeros(3, 3)) and torch.equal(outputs.grad[4], torch.zeros(3))
    assert outputs.grad[3].abs().min() > 0 and outputs.grad[5].abs().min() > 0


def test_each_class_of_several_has_its_own_threshold_by_hand() -> None:
    def inverse(*rows: tuple[float, ...]) -> Tensor:
        return torch.logit(torch.tensor(rows))

    weak, strong = inverse((0.97, 0.5, 0.01), (0.6, 0.4, 0.7)), inverse((0.8, 0.9, 0.3), (0.9, 0.9, 0.9))
    outputs = torch.cat((weak, strong)).requires_grad_()
    objective = ConsistencyObjective({"marks": TaskLoss("multi_label")}, {"marks": 1.0}, 0.95, weight=1.0)
    batch = batch_of({"marks": torch.tensor([0, 2])}, {"marks": 2.0})
    loss, _ = measured(objective, batch, marks=outputs)
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 3 / 2, rel=1e-5)
    loss.backward()
    assert (outputs.grad != 0).nonzero().tolist() == [[2, 0], [2, 2]]


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_a_certain_prediction_equals_its_label(kind: str) -> None:
    own = label_kind(kind)
    labels = torch.tensor([2, 0]) if own.one_class else torch.tensor([[0.0, 1, 1], [1, 0, 0]])
    outputs = 20 * (torch.eye(3)[labels] if own.one_class else 2 * labels - 1)
    found, confident = own.pseudo_labels(outputs, 0.99)
    assert torch.equal(found, labels) and confident.all()
    strong = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    expected = own.loss(strong, labels, weights=None, smoothing=0.1)
    torch.testing.assert_close(own.pseudo_loss(strong, found, confident, weights=None, smoothing=0.1), expected)
    assert not own.pseudo_labels(torch.zeros(2, 3), 0.95)[1].any()


def unlabelled(pool: Pool) -> dict[str, np.ndarray]:
    found = {name: np.ones(len(pool), bool) for name in KINDS}
    for name, rows in LABELLED.items():
        found[name][rows.numpy()] = False
    return found


def options() -> dict[str, Task]:
    return {name: Task(source="made", kind=kind, augment="light") for name, kind in KINDS.items()}


@pytest.fixture
def feed(task_pool: Pool):
    masks = unlabelled(task_pool)
    indices = {name: torch.from_numpy(np.flatnonzero(own)) for name, own in masks.items()}
    batches = TaskBatches(indices, 12, seed=0)
    loaders = [TaskLoader(task_pool, options(), batches, 0, 1, strong=strong) for strong in (False, True)]
    found = ConsistencyFeed(*loaders, masks, torch.device("cpu"))
    yield found
    found.close()


def build(pool: Pool, backbone: str) -> tuple[SharedModel, ConsistencyObjective]:
    torch.manual_seed(0)
    net = Backbone(backbone, image_size=(32, 32))
    decoder = DECODERS.get("stages")(width=16, depth=1).build(MapSpec(net.channels, net.map_sizes, (32, 32)))
    pretexts = {"grid_mask": PRETEXTS.get("grid_mask")()}
    specs = task_head_specs({name: pool.targets[name] for name in KINDS})
    model = SharedModel(net, decoder, head_specs(pretexts, 3), specs)
    for parameter in model.task_heads.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    losses = {name: TaskLoss(kind) for name, kind in KINDS.items()}
    return model, ConsistencyObjective(losses, dict.fromkeys(KINDS, 1.0), 0.6, 1.0)


def test_two_views_of_images_without_a_label(feed: ConsistencyFeed, task_pool: Pool) -> None:
    seen = []
    for step in range(6):
        ((batch, share),) = feed.at(step, 1)
        assert share == 1 and batch.weak.shape == batch.strong.shape == (12, 3, 32, 32)
        assert all((one != other).any() for one, other in zip(batch.weak, batch.strong, strict=True))
        for name, rows in batch.rows.items():
            assert batch.counts[name] == len(rows) > 0
            assert not torch.isin(batch.index[rows], LABELLED[name]).any()
            # an image serves every task that it is unlabelled for
            assert len(rows) == 12 - torch.isin(batch.index, LABELLED[name]).sum()
        seen.append(batch.index)
        assert torch.equal(feed.evidence(step)["indices"], batch.index)
    again = feed.at(3, 1)[0][0]
    assert torch.equal(again.index, seen[3]) and feed.images_per_step == 12 and feed.smallest_part(3) == 8
    assert len(torch.cat(seen).unique()) > 40


def test_micro_batches_add_up_to_the_step(feed: ConsistencyFeed, task_pool: Pool) -> None:
    model, objective = build(task_pool, "test_vit")
    model.eval()
    totals = [
        sum(step_loss(model, objective, batch, share).losses[CONSISTENCY].item() for batch, share in feed.at(0, count))
        for count in (1, 3)
    ]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4) and totals[0] > 0


def test_one_pass_with_labels_equals_two(feed: ConsistencyFeed, task_pool: Pool) -> None:
    """A task's head predicts for labelled and unlabelled rows of one pass, and they are told apart."""
    model, objective = build(task_pool, "test_vit")
    model.eval()
    index = LABELLED["letter"]
    labels = {"letter": Labels(torch.arange(10), task_pool.targets["letter"].gather(index))}
    tasks = TaskBatch(task_pool.gather(index), index, labels, {"letter": 10.0})
    members = {"tasks": TaskObjective({"letter": TaskLoss("single_label")}), CONSISTENCY: objective}
    batch = {"tasks": (tasks, 1.0), CONSISTENCY: feed.at(0, 1)[0]}
    together = step_loss(model, JointObjective(members), batch)
    separate = [step_loss(model, members[name], *batch[name]) for name in members]
    expected = {name: value.item() for loss in separate for name, value in loss.losses.items()}
    assert {name: value.item() for name, value in together.losses.items()} == pytest.approx(expected, rel=1e-4)
    assert together.rows == 10 + 2 * 12
    assert set(together.shown) == {"letter", "consistency.letter", "marks"}


def test_views_share_a_pass_but_not_with_a_damaged_copy(feed: ConsistencyFeed) -> None:
    model_pretexts = {"grid_mask": PRETEXTS.get("grid_mask")()}
    losses = {name: TaskLoss(kind) for name, kind in KINDS.items()}
    views = ConsistencyObjective(losses, dict.fromkeys(KINDS, 1.0), 0.6, 1.0)
    batch = feed.at(0, 1)[0]
    assert views.prepare(*batch).shown.num_passes == 1
    damaged = batch[0].index[:4]
    repair = ((feed.pool.gather(damaged), Keys(0, 0, damaged)), 1.0)
    members = {"repair": PretextObjective(Mixture(model_pretexts), {"grid_mask": 1.0}), CONSISTENCY: views}
    assert JointObjective(members).prepare({"repair": repair, CONSISTENCY: batch}).shown.num_passes == 2


def test_joint_feed_gives_micro_batches_of_both(feed: ConsistencyFeed, task_pool: Pool) -> None:
    batches = TaskBatches(LABELLED, 6, seed=0)
    with TaskLoader(task_pool, options(), batches, 0, 1) as loader:
        joined = JointFeed({"tasks": TaskFeed(loader, torch.device("cpu")), CONSISTENCY: feed})
        parts = joined.at(0, 3)
        assert [len(batch[CONSISTENCY][0].weak) for batch, _ in parts] == [4, 4, 4]
        assert joined.images_per_step == 18


def test_a_loss_that_rises_with_confidence_is_no_warning() -> None:
    watch = LossWatch()
    lines = [watch.look(step, {"consistency.letter": value}) for step, value in enumerate((0.01, 0.01, 0.01, 0.5))]
    assert lines == [[]] * 4
