"""What every kind of label must do, from a label's text to a prediction in words; a new file is tested unasked."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import LABEL_KINDS, LabelKind, TaskHeadSpec, label_kind
from vision_mtl.data.options import Task
from vision_mtl.data.targets import Target, parse_labels
from vision_mtl.evaluation.calibration import fit_temperature
from vision_mtl.evaluation.probing import ProbeTask, predict_constant, predict_knn, predict_linear, score_task
from vision_mtl.evaluation.scores import score_measures
from vision_mtl.inference.prediction_files import prediction_text
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.mixing import Labels
from vision_mtl.training.objective import step_loss
from vision_mtl.training.supervised import (
    TaskBatch,
    TaskLoss,
    TaskObjective,
    balanced_weights,
    task_head_specs,
)

PACKAGE = Path(__file__).parents[2] / "vision_mtl"
KINDS = LABEL_KINDS.names()
COUNT, BLANK = 24, 5  # images, and the one without a label
FEATURES, WIDTH, STRIDE, SIZE = 32, 8, 4, (8, 8)
LABELLED = np.delete(np.arange(COUNT), BLANK)


def target_of(name: str) -> Target:
    """Numbers as text suit every kind that reads text; masks are made of blocks that a readout can tell apart."""
    if label_kind(name).is_dense:
        blocks = np.random.default_rng(0).integers(0, 3, (COUNT, 2, 2)).astype(np.uint8)
        masks = np.repeat(np.repeat(blocks, STRIDE, axis=1), STRIDE, axis=2)
        return Target(name, ["0", "1", "2"], np.where(np.arange(COUNT) == BLANK, -1, np.arange(COUNT)), masks)
    texts = [None if n == BLANK else str(1 + n % 3) for n in range(COUNT)]
    target = parse_labels("t", Task(source="csv/x.csv", kind=name), texts, [f"{n}.png" for n in range(COUNT)])
    return target.in_unit_of(np.ones(COUNT, bool))


def spec_of(target: Target) -> TaskHeadSpec:
    return task_head_specs({"t": target})["t"]


def head_of(target: Target) -> nn.Module:
    torch.manual_seed(0)
    return label_kind(target.kind).head(spec_of(target), FEATURES, (WIDTH, STRIDE), SIZE)


def features_of(target: Target) -> Tensor:
    """What the head reads: noise, and for a dense kind the class of each block as well."""
    noise = torch.randn(COUNT, FEATURES, 2, 2, generator=torch.Generator().manual_seed(1))
    if not label_kind(target.kind).is_dense:
        return noise
    classes = torch.from_numpy(target.masks[:, ::STRIDE, ::STRIDE].astype(np.int64))
    shown = nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    return torch.cat([shown, noise[:, : WIDTH - 3] / 10], dim=1)


def loss_of(target: Target, outputs: Tensor) -> Tensor:
    return TaskLoss(target.kind)(outputs, target.gather(torch.from_numpy(LABELLED)))


def numbers_of(target: Target, head: nn.Module) -> np.ndarray:
    """What labelled images are scored by."""
    kind, rows = label_kind(target.kind), torch.from_numpy(LABELLED)
    with torch.no_grad():
        outputs = kind.outputs_to_score(head(features_of(target)[rows]), target.gather(rows))
        return (outputs if kind.is_dense else head.probabilities(outputs)).numpy()


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_says_what_it_is(name: str) -> None:
    kind = label_kind(name)
    assert isinstance(kind, LabelKind) and kind is label_kind(name)
    assert all(isinstance(text, str) and text for text in (kind.meaning, kind.form, kind.headline, kind.image_value))
    assert Task(source="csv/x.csv", kind=name).kind == name
    assert type(kind).__module__ == f"vision_mtl.tasks.{name}"
    assert not (kind.one_class and not kind.classifies_images)


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown kind of label.*'regresion'\. Did you mean 'regression'\?"):
        Task(source="csv/x.csv", kind="regresion")
    with pytest.raises(UserError, match="Did you mean 'dense'"):
        label_kind("dens")


@pytest.mark.parametrize("name", KINDS)
def test_a_blank_label_is_no_label(name: str) -> None:
    target = target_of(name)
    assert np.flatnonzero(~target.labelled).tolist() == [BLANK]
    few = target.keep(np.arange(COUNT) < 3)
    assert few.labelled.tolist() == [n < 3 for n in range(COUNT)] and few.values.dtype == target.values.dtype
    wide = target.spread(np.arange(COUNT)[::-1] + 2, COUNT + 2)
    assert np.flatnonzero(~wide.labelled).tolist() == [0, 1, COUNT + 1 - BLANK]
    assert BLANK not in target.occurrences()[0]


@pytest.mark.parametrize("name", KINDS)
def test_labels_have_a_row_for_each_image_and_strata(name: str) -> None:
    target, kind = target_of(name), label_kind(name)
    labels = target.gather(torch.from_numpy(LABELLED))
    assert len(labels) == len(LABELLED) and bool(labels.isfinite().all())
    strata = kind.strata(target.values[LABELLED])
    assert strata.shape == (len(LABELLED),) and np.issubdtype(strata.dtype, np.integer)
    images, classes = target.occurrences()
    assert (np.diff(images) >= 0).all() and classes.max() < max(len(target.class_names), 1)
    weights = balanced_weights(target, np.ones(COUNT, bool))
    assert (weights is not None) == kind.has_classes
    if weights is not None:
        assert weights.shape == (len(target.class_names),) and bool((weights > 0).all())


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_starts_near_its_chance(name: str) -> None:
    target = target_of(name)
    head, features = head_of(target), features_of(target)[LABELLED]
    fresh = loss_of(target, head(features))
    nn.init.zeros_(head.project.weight)
    nn.init.zeros_(head.project.bias)
    chance = loss_of(target, head(features))
    assert fresh.shape == (len(LABELLED),) and bool(fresh.isfinite().all()) and bool((fresh >= 0).all())
    assert fresh.mean().item() == pytest.approx(chance.mean().item(), rel=0.1) and chance.mean() > 0.1


@pytest.mark.parametrize("name", KINDS)
def test_a_head_learns_its_labels(name: str) -> None:
    target, kind = target_of(name), label_kind(name)
    head, features = head_of(target), features_of(target)[LABELLED]
    before = score_measures(kind.measures(numbers_of(target, head), target.values[LABELLED]), LABELLED)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss_of(target, head(features)).mean().backward()
        optimiser.step()
    numbers, values = numbers_of(target, head), target.values[LABELLED]
    after = score_measures(kind.measures(numbers, values), LABELLED)
    own = kind.image_values(numbers, values)
    assert own.shape == (len(LABELLED),) and own.dtype == np.float64
    sign = 1 if kind.has_classes else -1
    assert after[kind.image_metric].value == pytest.approx(sign * own.mean(), abs=1e-6)
    assert sign * after[kind.image_metric].value > sign * before[kind.image_metric].value
    assert kind.goodness(own, values) > 0.9
    if kind.has_classes:
        assert after[kind.headline].value > 0.9
    for score in [*before.values(), *after.values()]:
        assert np.isfinite(score.value) and score.low <= score.value <= score.high and score.n == len(LABELLED)
    if kind.has_classes:
        assert all(0 <= scores[kind.headline].value <= 1 for scores in (before, after))


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_are_some_and_a_temperature_changes_no_decision(name: str) -> None:
    target, kind = target_of(name), label_kind(name)
    head = head_of(target)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    outputs = head(features_of(target)).detach()
    numbers = head.probabilities(outputs)
    assert numbers.dtype == (torch.float32 if kind.has_classes else torch.float64)
    assert numbers.shape[1] == max(len(target.class_names), 1) and numbers.shape[2:] == outputs.shape[2:]
    if not kind.has_classes:
        return
    assert bool(((numbers >= 0) & (numbers <= 1)).all())
    assert kind.probabilities(outputs.double()).dtype == torch.float64
    torch.testing.assert_close(kind.probabilities(outputs), numbers)
    head.temperature.fill_(3.0)
    soft = head.probabilities(outputs)
    assert not torch.equal(soft, numbers) and torch.equal(kind.decide(soft), kind.decide(numbers))
    assert np.array_equal(kind.decide(numbers.numpy()), kind.decide(numbers).numpy())
    if kind.classifies_images:
        own = fit_temperature(kind, outputs[LABELLED], target.gather(torch.from_numpy(LABELLED)))
        assert 0.05 <= own <= 20


@pytest.mark.parametrize("name", KINDS)
def test_a_prediction_is_told_in_words(name: str) -> None:
    target, kind = target_of(name), label_kind(name)
    head = head_of(target)
    numbers = head.probabilities(head(features_of(target))).detach().numpy()
    prediction = kind.prediction(numbers[0], target.class_names)
    assert json.loads(json.dumps(prediction)) == prediction
    assert ("probability" in prediction) == kind.has_classes
    if kind.is_dense:
        return
    assert (
        prediction_text(prediction, " ")
        and kind.describe(kind.decide(numbers)[0], target.class_names).items() <= prediction.items()
    )
    task = Task(source="csv/x.csv", kind=name)
    for row in LABELLED[:3]:  # the words are a label again
        text = prediction_text(kind.describe(target.values[row], target.class_names), task.separator)
        again = parse_labels("t", task, [text, "1", "2", "3"], list("abcd"))
        assert np.array_equal(again.values[0], target.values[row])


@pytest.mark.parametrize("name", KINDS)
def test_a_task_without_a_label_has_no_gradient(name: str) -> None:
    target = target_of(name)
    torch.manual_seed(0)
    net = Backbone("test_resnet", image_size=SIZE)
    decoder = DECODERS.get("linear")().build(MapSpec(net.channels, net.map_sizes, SIZE))
    model = SharedModel(net, decoder, {}, {"here": spec_of(target), "absent": spec_of(target)})
    rows = torch.from_numpy(LABELLED[:4])
    labels = {"here": Labels(torch.arange(4), target.gather(rows))}
    objective = TaskObjective({task: TaskLoss(name) for task in ("here", "absent")})
    loss = step_loss(model, objective, TaskBatch(torch.rand(5, 3, *SIZE), torch.arange(5), labels, {"here": 4.0}))
    assert bool(loss.total.isfinite())
    loss.total.backward()
    assert all(p.grad is None for p in model.task_head("absent").parameters())
    assert all(p.grad is not None for p in model.task_head("here").parameters())
    request = Request("here", torch.arange(5), is_task=True)
    outputs = model(torch.rand(5, 3, *SIZE), [request])[request.key][0]
    assert len(outputs) == 5 and outputs.shape[2:] == (SIZE if label_kind(name).is_dense else ())


@pytest.mark.parametrize("name", [name for name in KINDS if label_kind(name).has_probe])
def test_a_kind_is_probed(name: str) -> None:
    target, kind = target_of(name), label_kind(name)
    values = np.tile(target.values[LABELLED[:12]], (3, *[1] * (target.values.ndim - 1)))
    random = np.random.default_rng(0)
    x = np.concatenate([values.reshape(36, -1) == v for v in np.unique(values)], axis=1) + random.normal(
        0, 0.05, (36, 1)
    )
    task = ProbeTask(name, target.num_outputs, values, np.arange(12), np.arange(12, 24), np.arange(24, 36))
    answers = {
        "linear": predict_linear(x, task, task.train),
        "knn": predict_knn(torch.from_numpy(x).float(), task, task.train),
        "majority": predict_constant(task, task.train),
    }
    found = score_task(task, answers, np.arange(12))
    sign = 1 if kind.has_classes else -1
    values_of = {method: sign * own[kind.image_metric].value for method, own in found.items()}
    assert values_of["linear"] > values_of["majority"] and values_of["knn"] > values_of["majority"]
    assert kind.headline in found["linear"] and ("chance" in found) == kind.has_classes


def test_a_head_is_described_in_checkpoints_as_ever() -> None:
    assert asdict(TaskHeadSpec("regression", 1, 5.0, 2.0)) == {
        "kind": "regression",
        "num_outputs": 1,
        "offset": 5.0,
        "scale": 2.0,
    }


def test_only_a_kinds_own_file_knows_its_name() -> None:
    """The default of an option is configuration, and the only place elsewhere."""
    found = []
    for file in (f for f in PACKAGE.rglob("*.py") if f.parent.name != "tasks"):
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        found += [str(file.relative_to(PACKAGE)) for n in nodes if isinstance(n, ast.Constant) and n.value in KINDS]
    for file in [f for suffix in ("js", "j2") for f in PACKAGE.rglob(f"*.{suffix}")]:
        if re.search(rf"\b({'|'.join(KINDS)})\b", file.read_text("utf-8")):
            found.append(str(file.relative_to(PACKAGE)))
    assert found == ["data/options.py"]


@pytest.mark.parametrize("name", [name for name in KINDS if label_kind(name).has_pseudo_labels])
def test_pseudo_labels_have_the_form_of_labels(name: str) -> None:
    kind, target = label_kind(name), target_of(name)
    outputs = head_of(target)(torch.randn(4, FEATURES, 2, 2)).detach()
    labels, confident = kind.pseudo_labels(outputs, 0.9)
    wanted = target.gather(torch.from_numpy(LABELLED[:4]))
    assert labels.shape == confident.shape == wanted.shape and labels.dtype == wanted.dtype
    assert confident.dtype == torch.bool
    options = {"weights": None, "smoothing": 0.0}
    everything, nothing = torch.ones_like(confident), torch.zeros_like(confident)
    torch.testing.assert_close(
        kind.pseudo_loss(outputs, labels, everything, **options), kind.loss(outputs, labels, **options)
    )
    assert torch.equal(kind.pseudo_loss(outputs, labels, nothing, **options), torch.zeros(4))
    assert kind.pseudo_labels(outputs, 0.0)[1].all() and not kind.pseudo_labels(outputs, 1.1)[1].any()
