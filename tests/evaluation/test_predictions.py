"""Predictions of a shared model for its tasks: their order, counts by slow loops, scores by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.evaluation.predictions import (
    TaskPredictions,
    goodness,
    instance_values,
    predict_split,
    predict_task,
    task_scores,
)
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel

COUNT, SIDE = 20, 32


@pytest.fixture(scope="module")
def pool() -> Pool:
    random, number = np.random.default_rng(0), np.arange(COUNT)
    masks = random.integers(0, 3, (COUNT, SIDE, SIDE), dtype=np.uint8)
    masks[:, 0] = 255
    marks = random.integers(0, 2, (COUNT, 2)).astype(np.int8)
    marks[::3] = -1
    targets = {
        "letter": Target("single_label", ["a", "b", "c"], np.where(number % 4, number % 3, -1)),
        "marks": Target("multi_label", ["p", "q"], marks),
        "size": Target("regression", [], np.where(number < 15, number * 2.0, np.nan).astype(np.float32)),
        "seen": Target("dense", ["0", "1", "2"], np.where(number >= 5, COUNT - 1 - number, -1), masks),
        "rare": Target("single_label", ["a"], np.where(number == 1, 0, -1)),
    }
    return Pool(
        blocks=[random.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)],
        identities=[str(n) for n in number],
        paths=[None] * COUNT,
        sources=["made"],
        member=np.ones((COUNT, 1), bool),
        split=np.where(number % 2, 2, 0).astype(np.int8),
        cluster=number,
        targets=targets,
        findings=[],
        details={},
    )


@pytest.fixture
def model(pool: Pool) -> SharedModel:
    torch.manual_seed(0)
    net = Backbone("test_resnet", image_size=(SIDE, SIDE))
    decoder = DECODERS.get("stages")(width=8, depth=1).build(MapSpec(net.channels, net.map_sizes, net.image_size))
    specs = {name: TaskHeadSpec(t.kind, t.num_outputs, 10.0, 4.0) for name, t in pool.targets.items()}
    made = SharedModel(net, decoder, {}, specs)
    for parameter in made.task_heads.parameters():
        torch.nn.init.normal_(parameter)
    return made.train()


def one_by_one(model: SharedModel, pool: Pool, task: str, indices: Tensor) -> Tensor:
    model.eval()
    request = Request(task, torch.tensor([0]), is_task=True)
    with torch.no_grad():
        return torch.cat([model(pool.gather(i[None]), [request])[request.key][0] for i in indices])


@pytest.mark.parametrize("task", ["letter", "marks", "size"])
def test_outputs_are_in_the_order_of_the_indices(model: SharedModel, pool: Pool, task: str) -> None:
    indices = torch.tensor([7, 1, 13, 5, 10])
    found = predict_task(model, pool, task, indices, batch_size=2)
    assert model.training and torch.equal(found.indices, indices)
    expected = one_by_one(model, pool, task, indices)
    if task == "size":  # in the labels' unit
        expected = expected.double() * 4 + 10
    torch.testing.assert_close(found.outputs, expected, atol=1e-4, rtol=1e-4)
    assert found.outputs.std() > 0.1


def test_a_model_in_eval_mode_is_left_unchanged(model: SharedModel, pool: Pool) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict_task(model.eval(), pool, "letter", torch.arange(8))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pixels_are_counted_by_a_slow_loop(model: SharedModel, pool: Pool) -> None:
    indices = torch.tensor([19, 6, 11])
    found = predict_task(model, pool, "seen", indices, batch_size=2)
    predicted = one_by_one(model, pool, "seen", indices).argmax(1)
    target = pool.targets["seen"]
    expected = torch.zeros(3, 3, 3, dtype=torch.int64)
    for n, index in enumerate(indices.tolist()):
        mask = target.masks[target.values[index]]
        for row in range(SIDE):
            for column in range(SIDE):
                if mask[row, column] != 255:
                    expected[n, mask[row, column], predicted[n, row, column]] += 1
    assert torch.equal(found.outputs, expected) and expected.sum() == 3 * SIDE * (SIDE - 1)
    assert len({tuple(counts.flatten().tolist()) for counts in expected}) == 3


def test_a_split_is_scored_on_its_labelled_images(model: SharedModel, pool: Pool) -> None:
    found = predict_split(model, pool, "test", list(pool.targets))
    for task, predictions in found.items():
        expected = [n for n in range(1, COUNT, 2) if pool.targets[task].labelled[n]]
        assert predictions.indices.tolist() == expected and len(predictions.outputs) == len(expected)
    assert set(found) == set(pool.targets)
    assert "rare" not in predict_split(model, pool, "train", list(pool.targets))
    few = predict_split(model, pool, "test", list(pool.targets), most_images=2)
    for task, predictions in found.items():
        chosen = few[task].indices
        assert len(chosen) == min(2, len(predictions.indices)), task
        assert set(chosen.tolist()) <= set(predictions.indices.tolist()), "a sample of the same images"


def predictions(kind: str, outputs: list, values: list, masks: np.ndarray | None = None) -> TaskPredictions:
    dtype = {"regression": np.float32, "multi_label": np.int8}.get(kind, np.int64)
    target = Target(kind, ["a", "b", "c"][: np.shape(outputs)[1]], np.array(values, dtype), masks)
    return TaskPredictions(target, torch.arange(len(values)), torch.tensor(outputs))


def test_one_class_by_hand() -> None:
    found = predictions("single_label", [[2.0, 1.0], [0.0, 1.0], [3.0, 4.0]], [0, 0, 1])
    assert instance_values(found).tolist() == [1, 0, 1] and goodness(found) == pytest.approx(2 / 3)
    probabilities = torch.softmax(found.outputs, 1)
    score = task_scores(found, probabilities, np.arange(3))["accuracy"]
    assert score.value == pytest.approx(2 / 3) and score.n == 3 and score.low < 2 / 3 < score.high


def test_several_labels_by_hand() -> None:
    found = predictions("multi_label", [[1.0, -1.0], [1.0, 1.0]], [[1, 0], [0, 1]])
    assert instance_values(found).tolist() == [1, 0.5] and goodness(found) == 0.75
    assert task_scores(found, torch.sigmoid(found.outputs), np.arange(2))["accuracy"].value == pytest.approx(0.75)


def test_numbers_by_hand() -> None:
    found = predictions("regression", [[1.0], [5.0], [12.0]], [2, 4, 12])
    assert instance_values(found).tolist() == [-1, -1, 0]
    assert goodness(found) == pytest.approx(1 - (2 / 3) / ((2 + 0 + 8) / 3))  # the median says 4
    assert task_scores(found, found.outputs, np.arange(3))["mae"].value == pytest.approx(2 / 3)
    assert goodness(predictions("regression", [[4.0], [4.0], [4.0]], [2, 4, 12])) == 0
    assert goodness(predictions("regression", [[1.0], [4.0]], [3, 3])) == -1.5  # labels that do not vary


def test_pixels_by_hand() -> None:
    counts = [[[3, 1], [0, 4]], [[0, 0], [2, 2]], [[0, 0], [0, 0]]]
    found = predictions("dense", counts, [0, 1, 2])
    assert instance_values(found).tolist() == [7 / 8, 0.5, 0] and goodness(found) == pytest.approx((7 / 8 + 0.5) / 3)
    scores = task_scores(found, found.outputs, np.arange(3))
    assert scores["mean_iou"].value == pytest.approx((3 / 6 + 6 / 9) / 2)
    assert scores["pixel_accuracy"].value == pytest.approx(9 / 12)


def test_probabilities_are_those_of_the_calibrated_head(model: SharedModel, pool: Pool) -> None:
    found = predict_task(model, pool, "letter", torch.tensor([1, 2, 3]))
    model.task_head("letter").temperature.fill_(4.0)
    expected = np.exp(found.outputs.double().numpy() / 4)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities(model, "letter"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "logits", "winner"),
    [("letter", [-0.004, float(np.nextafter(np.float32(-0.004), np.float32(0))), -1.0], 1), ("marks", [-1.0, 1e-9], 1)],
)
def test_a_high_temperature_changes_no_decision(
    model: SharedModel, task: str, logits: list[float], winner: int
) -> None:
    """In float32 these tie, so scores from probabilities and paired differences from logits would disagree."""
    kind = "single_label" if task == "letter" else "multi_label"
    head = model.task_head(task)
    head.temperature.fill_(20.0)
    found = predictions(kind, [logits], [winner] if task == "letter" else [[0, 1]])
    told = found.probabilities(model, task)
    assert task_scores(found, told, np.arange(1))["accuracy"].value == instance_values(found).mean() == 1
    rounded = head.probabilities(found.outputs)
    assert task_scores(found, rounded, np.arange(1))["accuracy"].value < 1
