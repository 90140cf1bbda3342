"""Several tasks in one batch: the gradient is the sum over tasks, and the losses are the textbooks'."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.data.loader import LabelledBatch
from vision_mtl.data.targets import Target
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.objective import StepLoss, step_loss
from vision_mtl.training.optimiser import build_optimiser
from vision_mtl.training.options import Optim
from vision_mtl.training.supervised import (
    TaskBatch,
    TaskFeed,
    TaskLoss,
    TaskObjective,
    balanced_weights,
)

ANSWERS = {
    "letter": TaskHeadSpec("single_label", 3),
    "shade": TaskHeadSpec("single_label", 2),
    "marks": TaskHeadSpec("multi_label", 4),
    "size": TaskHeadSpec("regression", 1, offset=40.0, scale=7.0),
    "seen": TaskHeadSpec("dense", 3),
}
# partial and overlapping: row 6 has no label, row 3 two, row 9 two
ROWS = {"letter": [0, 1, 2, 5, 7], "shade": [1, 2, 3], "marks": [3, 4, 7, 8, 9], "size": [3, 4, 7, 8, 9]}
ROWS["seen"] = [0, 9, 10, 11]
FOURS = [("letter", "shade", "marks", "seen"), ("letter", "shade", "size", "seen")]


def values_of(name: str) -> Tensor:
    """Return the labels of the rows of `ROWS`, as `Target.gather` does."""
    random = torch.Generator().manual_seed(1)
    count = len(ROWS[name])
    if name == "marks":
        return torch.randint(2, (count, 4), generator=random).float()
    if name == "size":
        return torch.randn(count, generator=random)  # standardised
    if name == "seen":
        masks = torch.randint(3, (count, 32, 32), generator=random)
        masks[0, :20] = -1
        return masks
    return torch.randint(ANSWERS[name].num_outputs, (count,), generator=random)


def build(backbone: str, tasks: tuple[str, ...]) -> SharedModel:
    torch.manual_seed(0)
    net = Backbone(backbone, image_size=(32, 32))
    decoder = DECODERS.get("stages")(width=16, depth=1).build(MapSpec(net.channels, net.map_sizes, (32, 32)))
    model = SharedModel(net, decoder, {}, {name: ANSWERS[name] for name in tasks}).double()
    for parameter in model.task_heads.parameters():  # heads start near zero, and the trunk's gradients with them
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def labelled_batch(tasks: tuple[str, ...], images: Tensor) -> LabelledBatch:
    number = torch.arange(len(images))
    targets = {name: (torch.tensor(ROWS[name]), values_of(name)) for name in tasks}
    return LabelledBatch(number, torch.zeros_like(number), torch.zeros_like(number), images, targets)


def feed_of(batch: LabelledBatch) -> TaskFeed:
    loader = SimpleNamespace(at=lambda step: batch, tasks=list(ANSWERS), seed=0)
    return TaskFeed(loader, torch.device("cpu"))


def objective_of(tasks: tuple[str, ...]) -> TaskObjective:
    return TaskObjective({name: TaskLoss(ANSWERS[name].kind) for name in tasks})


def textbook_loss(name: str, outputs: Tensor, values: Tensor) -> Tensor:
    """Return the mean over images, by torch's reductions."""
    if name == "size":
        return 0.5 * F.mse_loss(outputs[:, 0], values.double())
    if name == "marks":
        return F.binary_cross_entropy_with_logits(outputs, values.double())
    if name == "seen":
        each = [F.cross_entropy(o[None], v[None], ignore_index=-1) for o, v in zip(outputs, values, strict=True)]
        return torch.stack(each).mean()
    return F.cross_entropy(outputs, values)


def gradients(model: SharedModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], relative: float = 1e-6) -> None:
    """Compare norms, relative to the largest of the module: the gradient of a bias before a norm is rounding error."""
    assert found.keys() == expected.keys()
    for part in ("backbone", "decoder", "task_heads"):
        names = [name for name in expected if name.startswith(part)]
        largest = max(expected[name].norm() for name in names)
        assert largest > 1e-6
        for name in names:
            assert (found[name] - expected[name]).norm() <= relative * max(expected[name].norm(), 1e-3 * largest), name


def mixed_gradient(model: SharedModel, tasks: tuple[str, ...], images: Tensor, parts: int = 1) -> dict[str, Tensor]:
    for batch, _ in feed_of(labelled_batch(tasks, images)).at(0, parts):
        step_loss(model, objective_of(tasks), batch).total.backward()
    return gradients(model)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(12, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("tasks", FOURS, ids=lambda tasks: tasks[2])
@pytest.mark.parametrize("backbone", ["test_resnet", "vit_tiny_patch16_224"])
def test_the_gradient_of_a_mixed_batch_is_the_sum_over_the_tasks(
    backbone: str, tasks: tuple[str, ...], images: Tensor
) -> None:
    """One pass, in training mode: BatchNorm sees the full batch, and each head's loss is over its own rows."""
    model = build(backbone, tasks)
    found = mixed_gradient(model, tasks, images)
    maps = model.backbone(images)
    readout = model.decoder(maps)[0]
    for name in tasks:
        source = readout if name == "seen" else maps[-1]
        outputs = model.task_head(name)(source)[ROWS[name]]
        textbook_loss(name, outputs, values_of(name)).backward(retain_graph=True)
    assert_close(found, gradients(model))


@pytest.mark.parametrize("tasks", FOURS, ids=lambda tasks: tasks[2])
def test_separate_passes_of_the_subsets_give_the_same_gradient(tasks: tuple[str, ...], images: Tensor) -> None:
    """Without batch statistics, an image's loss does not depend on the other images of its batch."""
    model = build("vit_tiny_patch16_224", tasks)
    found = mixed_gradient(model, tasks, images)
    for name in tasks:
        own = Request(name, torch.arange(len(ROWS[name])), is_task=True)
        outputs = model(images[ROWS[name]], [own])[own.key][0]
        textbook_loss(name, outputs, values_of(name)).backward()
    assert_close(found, gradients(model))


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_micro_batches_add_up_to_the_batch(parts: int, images: Tensor) -> None:
    """Of two micro-batches only the first has labels of `shade`; of five, some lack several tasks."""
    model = build("vit_tiny_patch16_224", tuple(ANSWERS))
    whole = mixed_gradient(model, tuple(ANSWERS), images)
    assert_close(mixed_gradient(model, tuple(ANSWERS), images, parts), whole)
    found = feed_of(labelled_batch(tuple(ANSWERS), images)).at(0, parts)
    assert len(found) == parts and sum(share for _, share in found) == pytest.approx(1)
    if parts == 2:
        assert ["shade" in batch.labels for batch, _ in found] == [True, False]


def test_shown_losses_are_means_over_labelled_images(images: Tensor) -> None:
    model, tasks = build("vit_tiny_patch16_224", tuple(ANSWERS)), tuple(ANSWERS)
    with torch.no_grad():
        found = [step_loss(model, objective_of(tasks), b) for b, _ in feed_of(labelled_batch(tasks, images)).at(0, 3)]
        maps = model.backbone(images)
        readout = model.decoder(maps)[0]
    whole: dict[str, list[Tensor]] = {}
    for loss, name in itertools.product(found, tasks):
        if name in loss.shown:
            whole.setdefault(name, []).append(torch.stack(loss.shown[name]))
    for name in tasks:
        total, count = torch.stack(whole[name]).sum(0).tolist()
        source = readout if name == "seen" else maps[-1]
        expected = textbook_loss(name, model.task_head(name)(source)[ROWS[name]], values_of(name)).item()
        assert count == len(ROWS[name]) and total / count == pytest.approx(expected, rel=1e-5)
        assert sum(float(loss.losses[name]) for loss in found if name in loss.losses) == pytest.approx(
            expected, rel=1e-5
        )
    assert sum(loss.rows for loss in found) == 12 and isinstance(found[0], StepLoss)


def test_a_head_without_a_label_in_the_batch_does_not_change(images: Tensor) -> None:
    tasks = FOURS[1]
    model = build("test_resnet", tasks)
    optimiser = build_optimiser(model, Optim(weight_decay=0.5))
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    for present in (
        tasks,
        ("letter", "seen"),
    ):  # the first gives AdamW momentum, which could move a head
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimiser.zero_grad(set_to_none=True)
        (batch, _), *_ = feed_of(labelled_batch(present, images)).at(0, 1)
        step_loss(model, objective_of(tasks), batch).total.backward()
        optimiser.step()
    after = model.state_dict()
    heads = {name: torch.equal(before[name], after[name]) for name in before if name.startswith("task_heads.")}
    absent = [is_unchanged for name, is_unchanged in heads.items() if "task_shade" in name or "task_size" in name]
    assert all(absent) and len(absent) == 13  # with temperature, and two parts of offset and scale
    assert not any(heads[f"task_heads.task_{name}.project.weight"] for name in ("letter", "seen"))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weighted_and_smoothed_cross_entropy_by_hand(smoothing: float) -> None:
    logits, true, weights = np.array([[1.0, -2.0, 0.5], [0.2, 0.1, 3.0]]), [2, 0], np.array([0.5, 2.0, 1.25])
    loss = TaskLoss("single_label", smoothing, torch.tensor(weights, dtype=torch.float32))
    found = loss(torch.tensor(logits), torch.tensor(true))
    for row, value in enumerate(found.tolist()):
        surprise = -log_softmax(logits[row])
        expected = (1 - smoothing) * weights[true[row]] * surprise[true[row]]
        expected += smoothing / 3 * sum(weights[k] * surprise[k] for k in range(3))
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_by_hand(smoothing: float) -> None:
    logits, true, weights = [[2.0, -1.0], [0.0, 0.5]], [[1.0, 0.0], [1.0, 1.0]], [0.25, 3.0]
    found = TaskLoss("multi_label", smoothing, torch.tensor(weights))(torch.tensor(logits), torch.tensor(true))
    for row in range(2):
        terms = []
        for k in range(2):
            p, wanted = 1 / (1 + math.exp(-logits[row][k])), true[row][k] * (1 - smoothing) + smoothing / 2
            terms.append(-weights[k] * (wanted * math.log(p) + (1 - wanted) * math.log(1 - p)))
        assert found[row].item() == pytest.approx(sum(terms) / 2, rel=1e-6)


def test_a_number_is_scored_in_units_of_the_labels_spread() -> None:
    target = Target("regression", [], np.array([18.0, 2.0, 10.0]), unit=(10.0, 4.0))
    labels = target.gather(torch.tensor([0, 1]))
    assert labels.dtype == torch.float32
    assert TaskLoss("regression")(torch.tensor([[0.0], [-2.0]]), labels).tolist() == [pytest.approx(0.5 * 2.0**2), 0.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]])
def test_pixels_by_a_slow_loop_without_ignored_ones(weights: list[float] | None, smoothing: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 4, 5, generator=random, requires_grad=True)
    true = torch.randint(-1, 3, (3, 4, 5), generator=random)
    true[1] = -1  # a mask that crops and rotations left without classes
    loss = TaskLoss("dense", smoothing, None if weights is None else torch.tensor(weights))
    found = loss(logits, true)
    own = weights or [1.0] * 3
    for row in range(3):
        terms = []
        for i, j in itertools.product(range(4), range(5)):
            if (k := int(true[row, i, j])) >= 0:
                surprise = -log_softmax(logits[row, :, i, j].detach().double().numpy())
                smooth = smoothing / 3 * sum(own[c] * surprise[c] for c in range(3))
                terms.append((1 - smoothing) * own[k] * surprise[k] + smooth)
        assert found[row].item() == pytest.approx(sum(terms) / max(len(terms), 1), rel=1e-5)
    assert found[1].item() == 0
    found.sum().backward()
    assert bool(logits.grad.isfinite().all()) and bool((logits.grad[(true < 0)[:, None].expand_as(logits)] == 0).all())


def test_a_mixed_image_has_the_losses_of_both_labels_by_share() -> None:
    from vision_mtl.training.mixing import Labels

    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    labels = Labels(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([0.25, 1.0]))
    objective = TaskObjective({"letter": TaskLoss("single_label")})
    batch = TaskBatch(torch.zeros(2, 3, 4, 4), torch.arange(2), {"letter": labels}, {"letter": 2.0})
    found = objective.measure({"task:letter": [logits]}, objective.prepare(batch))
    own, other = (F.cross_entropy(logits, v, reduction="none") for v in (labels.values, labels.others))
    expected = (0.25 * own[0] + 0.75 * other[0] + own[1]) / 2
    assert found.losses["letter"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_are_scikit_learns_over_training_labels() -> None:
    values = np.array([0, 0, 0, 1, 2, 2, -1, 1, 1, 1])
    train = np.array([True] * 7 + [False] * 3)
    found = balanced_weights(Target("single_label", ["a", "b", "c"], values), train)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=values[:6])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float((found[values[:6]]).mean()) == pytest.approx(1)


def test_balanced_weights_of_labels_and_pixels_by_hand() -> None:
    several = Target("multi_label", ["a", "b"], np.array([[1, 1], [1, 0], [1, 0], [-1, -1], [0, 1]], np.int8))
    train = np.array([True, True, True, True, False])
    np.testing.assert_allclose(balanced_weights(several, train), [4 / 3 / 2, 4 / 1 / 2], rtol=1e-6)
    masks = np.array([[[0, 0], [1, 255]], [[1, 1], [1, 1]], [[2, 2], [0, 0]]], np.uint8)
    dense = Target("dense", ["0", "1", "2"], np.array([0, -1, 2, 1]), masks)  # the second mask is a test image's
    rows = np.array([True, True, True, False])
    np.testing.assert_allclose(balanced_weights(dense, rows), np.array([7 / 4, 7 / 1, 7 / 2]) / 3, rtol=1e-6)
    assert balanced_weights(Target("regression", [], np.zeros(4, np.float32)), rows) is None


def test_a_numbers_unit_comes_from_training_labels() -> None:
    target = Target("regression", [], np.array([1, 3, np.nan, 100]))
    assert target.in_unit_of(np.array([True, True, True, False])).unit == (2.0, 1.0)
    assert target.in_unit_of(np.array([True, False, True, False])).unit == (1.0, 1.0)  # one value has no spread
    assert target.in_unit_of(np.zeros(4, bool)).unit == (0.0, 1.0)
    assert Target("single_label", ["a"], np.array([0])).in_unit_of(np.array([True])).unit == (0.0, 1.0)
    same = Target("regression", [], np.array([1e9, np.nextafter(1e9, 2e9)]))  # rounding is no spread
    assert same.in_unit_of(np.ones(2, bool)).unit == (1e9, 1.0)


def test_the_share_of_images_with_a_label_counts_those_drawn_for_other_tasks(make_task_trainer) -> None:
    """Against a count over a full cycle of slots: 0-29 have a letter, 20-44 a shade."""
    trainer = make_task_trainer(tasks=("letter", "shade"))
    feed = trainer.feed
    carrying = sum(
        int((index < 30).sum()) for index, _, _ in (feed.loader.batches.at(step) for step in range(1024 // 12))
    )
    feed.close()
    assert feed.share("letter") == pytest.approx(carrying / (1024 // 12 * 12), abs=0.02)
    assert feed.share("letter") > 30 / 55 + 0.1
