"""Rows of one image in separate passes: in training no hidden pixel reaches a prediction, and gradients stay right."""

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vision_mtl.core.rng import Keys
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.models import shared
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.passes import Shown, batch_norms, fill_rows, merge, shared_momentum, split_rows
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.joint import JointObjective
from vision_mtl.training.mixing import Labels
from vision_mtl.training.objective import Prepared
from vision_mtl.training.repair import PretextObjective, head_specs
from vision_mtl.training.supervised import TaskBatch, TaskLoss, TaskObjective

SIDE = 32
REPEATED = torch.tensor([5, 7, 5, 9])  # a step that spans two epochs holds an image twice
ROWS = st.lists(st.tuples(st.lists(st.integers(0, 5), min_size=1, max_size=2), st.booleans()), min_size=1, max_size=30)
MASKED: dict[str, dict[str, Pretext]] = {
    "one": {"grid_mask": PRETEXTS.get("grid_mask")(grid=2, instances_per_image="all")},
    "learned": {"grid_mask": PRETEXTS.get("grid_mask")(grid=2, instances_per_image=3, fill="learned")},
    "ratio": {"grid_mask": PRETEXTS.get("grid_mask")(hidden="ratio")},
    "after": {"grid_mask": PRETEXTS.get("grid_mask")(hidden="after")},
    "centre": {"grid_mask": PRETEXTS.get("grid_mask")(hidden="centre")},
    "chain": {"chain": PRETEXTS.get("chain")()},
    "mixed": {
        "grid_mask": PRETEXTS.get("grid_mask")(grid=2, instances_per_image=4),
        "contrast": PRETEXTS.get("contrast")(),
        "decolorise": PRETEXTS.get("decolorise")(),
    },
}


def build(pretexts: dict[str, Pretext], name: str = "test_resnet", decoder: str = "stages") -> SharedModel:
    torch.manual_seed(0)
    backbone = Backbone(name, image_size=(SIDE, SIDE))
    maps = MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size)
    tasks = {"shape": TaskHeadSpec("single_label", 3)}
    model = SharedModel(backbone, DECODERS.get(decoder)().build(maps), head_specs(pretexts, 3), tasks)
    for parameter in model.heads.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.train()


def objective(pretexts: dict[str, Pretext]) -> PretextObjective:
    return PretextObjective(Mixture(pretexts), dict.fromkeys(pretexts, 1.0))


def pictures(count: int = 10) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def repaired(model: SharedModel, prepared: Prepared, name: str, row: int) -> Tensor:
    with torch.no_grad():
        return model(prepared.images, prepared.requests, prepared.drop_draw, prepared.shown)[name][0][row]


@pytest.mark.parametrize("pretexts", MASKED.values(), ids=MASKED)
def test_hidden_pixels_change_no_prediction_in_training(pretexts: dict[str, Pretext]) -> None:
    model, own, store = build(pretexts), objective(pretexts), pictures()
    keys = Keys(1, torch.tensor([0, 0, 1, 0]), REPEATED)
    changed = 0
    for part in own.prepare((store[REPEATED], keys)).data:
        if part.mask is None:
            continue
        for row in range(0, len(part.images), 3):
            other = store.clone()
            image = int(part.index[row])
            other[image] = torch.where(part.mask[row], 1 - store[image], store[image])
            before = repaired(model, own.prepare((store[REPEATED], keys)), part.name, row)
            after = repaired(model, own.prepare((other[REPEATED], keys)), part.name, row)
            assert bool(before.isfinite().all()) and torch.equal(before, after)
            changed += 1
    assert changed


@pytest.mark.parametrize("partner", [None, 5])
def test_the_undamaged_image_of_a_label_is_in_another_pass(partner: int | None) -> None:
    pretexts = MASKED["ratio"]
    model, store, repair = build(pretexts), pictures(), objective(pretexts)
    both = JointObjective({"repair": repair, "tasks": TaskObjective({"shape": TaskLoss("single_label")})})
    labels = {"shape": Labels(torch.arange(3), torch.tensor([0, 1, 2]))}
    clean = torch.tensor([5, 1, 2]) if partner is None else torch.tensor([[1, 5], [2, 2], [3, 4]])
    keys = Keys(0, 0, torch.tensor([5, 7]))

    def predicted(images: Tensor) -> Tensor:
        seen = images[clean] if partner is None else images[clean].mean(1)
        batch = {"repair": ((images[keys.index], keys), 1.0), "tasks": (TaskBatch(seen, clean, labels, {}), 1.0)}
        prepared = both.prepare(batch)
        assert prepared.shown is not None and prepared.shown.num_passes == 2
        return repaired(model, prepared, "grid_mask", 0)

    part = repair.prepare((store[keys.index], keys)).data[0]
    other = store.clone()
    other[5] = torch.where(part.mask[0], 1 - store[5], store[5])
    assert torch.equal(predicted(store), predicted(other))


@pytest.mark.parametrize(("name", "decoder"), [("test_convnext", "stages"), ("test_vit", "transformer")])
def test_gradients_of_separate_passes_are_those_of_one(
    name: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretexts, images = MASKED["mixed"], pictures(6)
    model, own = build(pretexts, name, decoder), objective(pretexts)
    prepared = own.prepare((images, Keys(3, 0, torch.arange(6))))
    assert prepared.shown is not None and prepared.shown.num_passes == 4 and len(prepared.data) > 1
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda module, given, maps: calls.append(len(given[0])))
    found = []
    for norms in ([], [nn.BatchNorm2d(1)]):
        monkeypatch.setattr(shared, "batch_norms", lambda backbone, norms=norms: norms)
        predictions = model(prepared.images, prepared.requests, prepared.drop_draw, prepared.shown)
        own.measure(predictions, prepared).losses["repair"].backward()
        found.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
        model.zero_grad(set_to_none=True)
    assert len(calls) == 5 and sum(calls[1:]) == calls[0] and max(calls[1:]) - min(calls[1:]) <= 1
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_resnet"])
def test_one_pass_where_nothing_normalises_over_rows(name: str) -> None:
    pretexts = MASKED["one"]
    model = build(pretexts, name)
    if name == "test_resnet":
        model.frozen = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        model.train()
    calls: list[int] = []
    model.backbone.register_forward_hook(lambda module, given, maps: calls.append(len(given[0])))
    prepared = objective(pretexts).prepare((pictures(4), Keys(0, 0, torch.arange(4))))
    model(prepared.images, prepared.requests, prepared.drop_draw, prepared.shown)
    assert calls == [16]


def test_one_image_alone_trains_without_an_error() -> None:
    pretexts = MASKED["one"]
    model, prepared = build(pretexts), objective(pretexts).prepare((pictures(1), Keys(0, 0, torch.arange(1))))
    model.common_passes = lambda count: count + 2  # other processes need more
    found = model(prepared.images, prepared.requests, prepared.drop_draw, prepared.shown)["grid_mask"][0]
    assert len(found) == 4 and bool(found.isfinite().all())


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_no_pass_shows_what_one_of_its_rows_hides(rows: list[tuple[list[int], bool]]) -> None:
    # a mixed image predicts nothing that it hides
    shown = Shown([tuple(images) for images, _ in rows], [own and len(images) == 1 for images, own in rows])
    passes = split_rows(shown, shown.num_passes)
    assert sorted(row for own in passes for row in own) == list(range(len(rows)))
    if all(len(images) == 1 for images in shown.images):
        assert len(passes) == shown.num_passes
    for own in passes:
        filled = fill_rows(own, shown)
        assert filled[: len(own)] == own and len(filled) >= 2
        for row in own:
            if shown.guarded[row]:
                others = [other for other in filled if other != row]
                assert not any(set(shown.images[other]) & set(shown.images[row]) for other in others)


def test_passes_are_merged_in_the_order_of_the_batch() -> None:
    rows, values = [[3, 0], [2], [1, 4]], torch.arange(5.0)[:, None]
    maps = [[values[own], 2 * values[own]] for own in ([3, 0], [2, 0], [1, 4])]
    found = merge(maps, rows)
    assert torch.equal(found[0], values) and torch.equal(found[1], 2 * values)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_passes_change_running_statistics_as_one_does(momentum: float | None) -> None:
    def run(num_passes: int) -> Iterable[Tensor]:
        norm = nn.BatchNorm2d(3, momentum=momentum)
        assert batch_norms(norm) == [norm]
        with shared_momentum([norm], num_passes):
            for _ in range(num_passes):
                norm(pictures(4))
        assert norm.momentum == momentum
        return norm.running_mean, norm.running_var

    for one, several in zip(run(1), run(4), strict=True):
        torch.testing.assert_close(one, several)
