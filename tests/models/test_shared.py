"""One pass over a mixed batch gives the same predictions as separate passes for each pretext and task."""

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.request import Request
from vision_mtl.models.shared import HeadSpec, SharedModel

HEAD_SPECS = {
    "mask": HeadSpec("pixels", 3, learned_fill=True),
    "colour": HeadSpec("pixels", 2),
    "turn": HeadSpec("logits", 4),
}
TASKS = {
    "letter": TaskHeadSpec("single_label", 5),
    "marks": TaskHeadSpec("multi_label", 3),
    "size": TaskHeadSpec("regression", 1, offset=100.0, scale=20.0),
    "seen": TaskHeadSpec("dense", 4),
}


def build(backbone: str, decoder: str, tasks: dict[str, TaskHeadSpec] | None = None) -> SharedModel:
    torch.manual_seed(0)
    trunk = Backbone(backbone, image_size=(64, 64))
    made = DECODERS.get(decoder)().build(MapSpec(trunk.channels, trunk.map_sizes, (64, 64)))
    return SharedModel(trunk, made, HEAD_SPECS, tasks)


def task(name: str, *rows: int) -> Request:
    return Request(name, torch.tensor(rows), is_task=True)


def cell_mask(rows: int) -> torch.Tensor:
    mask = torch.zeros(rows, 1, 64, 64, dtype=torch.bool)
    mask[:, :, 16:32, 32:48] = True
    return mask


def test_parts_of_a_mixed_batch_equal_separate_passes() -> None:
    for backbone, decoder in (("resnet18", "stages"), ("vit_tiny_patch16_224", "transformer")):
        model = build(backbone, decoder).eval()
        images = torch.rand(6, 3, 64, 64)
        parts = [
            Request("mask", slice(0, 2), cell_mask(2)),
            Request("colour", slice(2, 5)),
            Request("turn", slice(5, 6)),
        ]
        with torch.no_grad():
            mixed = model(images, parts)
            for part in parts:
                size = part.rows.stop - part.rows.start
                alone = model(images[part.rows], [Request(part.name, slice(0, size), part.mask)])
                torch.testing.assert_close(mixed[part.name][0], alone[part.name][0], atol=1e-5, rtol=1e-4)


def test_learned_fill_replaces_hidden_pixels_and_is_trained() -> None:
    model = build("resnet18", "linear")
    with torch.no_grad():
        model.fills["mask"].copy_(torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    images = torch.rand(3, 3, 64, 64)
    filled = model.fill_hidden(images, [Request("mask", slice(1, 2), cell_mask(1))])
    assert filled[1, :, 20, 40].tolist() == [model.fills["mask"][c].item() for c in range(3)]
    assert torch.equal(filled[[0, 2]], images[[0, 2]]) and torch.equal(filled[1, :, 0], images[1, :, 0])
    model(images, [Request("mask", slice(0, 3), cell_mask(3))])["mask"][0].square().sum().backward()
    assert model.fills["mask"].grad.abs().sum() > 0


def test_a_head_without_rows_gets_no_gradient() -> None:
    model = build("resnet18", "stages")
    model(torch.rand(2, 3, 64, 64), [Request("turn", slice(0, 2))])["turn"][0].sum().backward()
    assert all(p.grad is None for p in model.heads["colour"].parameters())
    assert all(p.grad is not None for p in model.heads["turn"].parameters())


@pytest.mark.parametrize(("backbone", "decoder"), [("resnet18", "stages"), ("vit_tiny_patch16_224", "transformer")])
def test_tasks_and_pretexts_of_a_mixed_batch_equal_separate_passes(backbone: str, decoder: str) -> None:
    model = build(backbone, decoder, TASKS).eval()
    images = torch.rand(7, 3, 64, 64)
    requests = [
        Request("mask", slice(0, 2), cell_mask(2)),
        Request("turn", slice(2, 3)),
        task("letter", 3, 5, 4),  # in any order, and overlapping
        task("seen", 6, 4),
        task("size", 4),
        task("marks", 5, 6),
    ]
    sizes = {"task:letter": (3, 5), "task:seen": (2, 4, 64, 64), "task:size": (1, 1), "task:marks": (2, 3)}
    with torch.no_grad():
        mixed = model(images, requests)
        assert {key: tuple(mixed[key][0].shape) for key in sizes} == sizes
        for request in requests:
            rows = images[request.rows]
            own = Request(request.name, slice(0, len(rows)), request.mask, request.is_task)
            alone = model(rows, [own])[own.key][0]
            torch.testing.assert_close(mixed[request.key][0], alone, atol=1e-5, rtol=1e-4)


def test_a_task_and_a_pretext_may_share_a_name() -> None:
    model = build(
        "resnet18", "stages", {"mask": TaskHeadSpec("single_label", 2), "turn": TaskHeadSpec("dense", 3)}
    ).eval()
    with torch.no_grad():
        model.fills["mask"].fill_(0.9)
        images = torch.rand(3, 3, 64, 64)
        found = model(images, [Request("mask", slice(0, 1), cell_mask(1)), task("mask", 1, 2), task("turn", 2)])
        plain = model(images, [task("mask", 1, 2)])
    assert {key: tuple(value[0].shape) for key, value in found.items()} == {
        "mask": (1, 3, 64, 64),
        "task:mask": (2, 2),
        "task:turn": (1, 3, 64, 64),
    }
    torch.testing.assert_close(
        found["task:mask"][0], plain["task:mask"][0]
    )  # the learned fill does not enter the images of a task


def test_only_the_rows_that_need_it_are_decoded() -> None:
    model, seen = build("resnet18", "stages", TASKS).eval(), []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append([len(m) for m in inputs[0]]))
    images = torch.rand(6, 3, 64, 64)
    with torch.no_grad():
        model(images, [task("letter", 0, 1), task("size", 2)])
        assert seen == []
        model(images, [task("letter", 0, 1), task("seen", 5, 2)])
        model(images, [Request("colour", slice(0, 2)), Request("turn", slice(2, 4)), task("seen", 4, 5, 1)])
        model(images, [Request("colour", slice(0, 6))])
    assert [set(counts) for counts in seen] == [{2}, {4}, {6}]


def test_heads_of_absent_tasks_get_no_gradient() -> None:
    model = build("resnet18", "stages", TASKS)
    found = model(torch.rand(2, 3, 64, 64), [task("size", 1)])
    found["task:size"][0].sum().backward()
    for name in TASKS:
        given = [p.grad is not None for p in model.task_head(name).parameters()]
        assert set(given) == {name == "size"}
    assert all(p.grad is None for p in model.decoder.parameters())


@pytest.mark.parametrize("name", ["a.b", "a b", "", "a/b", "letter"])
def test_invalid_or_used_task_names_are_refused(name: str) -> None:
    model = build("resnet18", "linear", TASKS)
    with pytest.raises(UserError, match=rf"new and have letters, digits, - and _ only; found '{name}'"):
        model.add_task(name, TaskHeadSpec("single_label", 2))


@pytest.mark.parametrize("name", ["keys", "pop", "2024", "my-task", "größe"])
def test_any_other_task_name_works(name: str) -> None:
    model = build("resnet18", "linear", TASKS)
    before = set(model.state_dict())
    model.add_task(name, TaskHeadSpec("single_label", 2))
    assert {key.split(".")[1] for key in set(model.state_dict()) - before} == {f"task_{name}"}
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 64), [task(name, 0)])[f"task:{name}"][0].shape == (1, 2)


@pytest.mark.parametrize(("backbone", "decoder"), [("resnet18", "stages"), ("vit_tiny_patch16_224", "transformer")])
def test_a_new_head_predicts_about_zero_and_a_trained_one_does_not(backbone: str, decoder: str) -> None:
    model = build(backbone, decoder).eval()
    with torch.no_grad():
        said = model(torch.rand(4, 3, 64, 64), [Request("colour", slice(0, 2)), Request("turn", slice(2, 4))])
    for name in ("colour", "turn"):
        assert model.predicts_zero(name) and float(said[name][0].abs().max()) < 0.1
        torch.nn.init.normal_(next(model.heads[name].children()).project.weight, std=0.02)
        assert not model.predicts_zero(name)
