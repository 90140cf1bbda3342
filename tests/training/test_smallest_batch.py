"""A pass of one image where the network or a pretext needs two is one error before training; elsewhere it works."""

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.batches import Batches
from vision_mtl.evaluation.features import with_clean_statistics
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.batch_norm import needs_two_images, synchronise
from vision_mtl.models.depth import freeze
from vision_mtl.training.diagnosis import what_fits
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.options import Optim
from vision_mtl.training.smallest_batch import check_smallest_batch
from vision_mtl.training.supervised import TaskObjective


@pytest.mark.parametrize(
    ("options", "found", "advice"),
    [
        ({"batch_size": 1}, "optim.batch_size 1: a pass has 1 image", "Give --optim.batch_size 2 or more. A backbone"),
        (
            {"batch_size": 8, "accumulate": 8},
            "optim.batch_size 8 and optim.accumulate 8: a pass has 1 image",
            "Give --optim.batch_size 16 or more, or --optim.accumulate 4 or less.",
        ),
        (
            {"batch_size": 3, "accumulate": 2},
            "optim.batch_size 3 and optim.accumulate 2",
            "--optim.batch_size 4 or more, or leave out --optim.accumulate.",
        ),
    ],
)
def test_one_image_and_batch_norm_is_an_error(make_trainer, make_task_trainer, options, found, advice) -> None:
    for make in (make_trainer, make_task_trainer):
        with pytest.raises(UserError) as error:
            make("test_resnet", **options)
        assert found in str(error.value) and advice in str(error.value) and "'test_resnet'" in str(error.value)


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}])
def test_one_image_without_batch_norm_trains(make_trainer, make_task_trainer, backbone: str, options: dict) -> None:
    for made in (
        make_trainer(backbone, ("downsample",), steps=1, **options),
        make_task_trainer(backbone, steps=1, **options),
    ):
        made.fit()
        assert made.progress.step == 1
        made.feed.close()


def test_two_images_are_enough(make_trainer) -> None:
    make_trainer(steps=1, batch_size=2).fit()
    make_trainer(steps=1, batch_size=5, accumulate=2).fit()


def test_a_single_labelled_image_of_a_task_is_enough(make_task_trainer) -> None:
    """Heads have no BatchNorm: a task may have one image in a step, or in a micro-batch."""
    trainer = make_task_trainer(steps=6, batch_size=4, accumulate=2)
    rows = [
        labels.rows for step in range(6) for batch, _ in trainer.feed.at(step, 2) for labels in batch.labels.values()
    ]
    assert min(map(len, rows)) == 1
    trainer.fit()
    trainer.feed.close()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_contrast_needs_two_images(make_trainer, accumulate: int) -> None:
    with pytest.raises(UserError, match=r"a pass has 1 image, but pretext 'contrast' compares images"):
        make_trainer("test_vit", ("downsample", "contrast"), batch_size=accumulate, accumulate=accumulate)
    make_trainer("test_vit", ("contrast",), batch_size=2 * accumulate, accumulate=accumulate, steps=1).fit()


def test_processes_and_joined_batches_count(make_trainer, make_task_trainer) -> None:
    repair, tasks = make_trainer("test_resnet"), make_task_trainer("test_resnet", ("letter",))
    model, optim = repair.model, Optim(steps=1, batch_size=8, accumulate=2)
    slices = repair.feed.__class__(
        repair.feed.pool, Batches(torch.arange(9), 2, 0, world_size=4), 0, torch.device("cpu")
    )
    with pytest.raises(
        UserError, match=r"accumulate 2 in 4 processes: .* Give --optim.batch_size 16 or more, or leave"
    ):
        check_smallest_batch(model, repair.objective, slices, optim, 4)
    one = repair.feed.__class__(repair.feed.pool, Batches(torch.arange(9), 1, 0), 0, torch.device("cpu"))
    objective = JointObjective({"repair": repair.objective, "tasks": tasks.objective})
    joined = JointFeed({"repair": one, "tasks": tasks.feed})
    assert [joined.smallest_part(count) for count in (1, 2)] == [13, 0]  # one damaged image and twelve labelled
    check_smallest_batch(model, objective, joined, Optim(steps=1, batch_size=13))
    check_smallest_batch(model, TaskObjective({}), tasks.feed, Optim(steps=1, batch_size=12, accumulate=6))
    tasks.feed.close()


def test_frozen_and_synchronised_layers_need_no_second_image() -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
    assert needs_two_images(backbone)
    assert not needs_two_images(backbone, freeze(backbone))
    synchronise(backbone)
    assert not needs_two_images(backbone)


def test_advice_on_memory_stops_at_two_images(make_task_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time would fit, but cannot train BatchNorm."""
    for backbone, text in (
        ("test_resnet", "not even two images at a time fit (BatchNorm needs two)"),
        ("test_vit", "1 images"),
    ):
        trainer = make_task_trainer(backbone, ("letter",), batch_size=8)
        original = type(trainer.model).forward

        def forward(self, images: torch.Tensor, *others: object, original=original) -> object:
            if len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            return original(self, images, *others)

        with monkeypatch.context() as patch:
            patch.setattr(type(trainer.model), "forward", forward)
            options = {"optim": trainer.optim, "optimiser": trainer.optimiser, "layout": trainer.layout}
            advice = what_fits(
                trainer.model, trainer.objective, trainer.feed, 0, autocast=trainer.accelerator.autocast, **options
            )
        assert text in advice
        trainer.feed.close()


def test_statistics_of_one_image_are_not_taken(pool) -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
    for name, buffer in backbone.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.25)
    for count, kept in ((1, True), (2, False)):
        clean = with_clean_statistics(backbone, pool, pool.indices("train")[:count])
        means = [b for name, b in clean.named_buffers() if name.endswith("running_mean")]
        assert all(bool((mean == 0.25).all()) == kept for mean in means) and not clean.training
