"""Mixup and CutMix over several tasks: partners, shares, labels and masks."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.data.loader import LabelledBatch
from vision_mtl.training.mixing import Labels, Mixing, boxes, partners, symmetric_beta

COUNT, SIDE = 24, 16


def batch_of(epoch: int = 0, order: Tensor | None = None) -> tuple[LabelledBatch, dict[str, Labels]]:
    """Return images i of uniform colour i / 24 with masks of uniform class i, and overlapping labels of three tasks."""
    number = torch.arange(COUNT) if order is None else order
    images = (number / COUNT)[:, None, None, None].expand(-1, 3, SIDE, SIDE).clone()
    rows = {"a": number < 16, "b": number % 3 != 0, "seen": number >= 6}
    labels = {}
    for name, present in rows.items():
        own = number[present]
        values = own if name != "seen" else own[:, None, None].expand(-1, SIDE, SIDE).clone()
        labels[name] = Labels(present.nonzero()[:, 0], values)
    drawn_for = (number >= 12).long()
    return LabelledBatch(number, torch.full_like(number, epoch), drawn_for, images, {}), labels


def mix(seed: int = 0, epoch: int = 0, **strengths: float) -> tuple[LabelledBatch, Tensor, dict[str, Labels]]:
    batch, labels = batch_of(epoch)
    images, mixed = Mixing(**strengths)(batch.images, labels, batch, seed)
    return batch, images, mixed


def partners_of(batch: LabelledBatch, seed: int = 0) -> Tensor:
    """Return the partners as `Mixing` draws them."""
    return partners(batch.drawn_for, Keys(seed, batch.epochs, batch.indices, name="mixing"))


def test_partners_are_drawn_for_the_same_task() -> None:
    task = torch.tensor([0, 2, 1, 0, 0, 2, 2, 1, 0, 2] * 6)
    seen = set()
    for seed in range(20):
        found = partners(task, Keys(seed, 0, torch.arange(60)))
        assert torch.equal(task[found], task) and torch.equal(found.sort().values, torch.arange(60))
        seen |= {(row, int(other)) for row, other in enumerate(found)}
    assert len(seen) > 600  # of 1,200 draws: every image is mixed with many others


@pytest.mark.parametrize("alpha", [0.4, 1.0, 4.0, 20.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    found = symmetric_beta(Keys(0, 0, torch.arange(4000)), torch.full((4000,), alpha))
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    assert found.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / (2 * alpha + 1) / 4000))
    assert stats.kstest(found.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_strength_1_is_uniform_and_0_leaves_the_image() -> None:
    alpha = torch.tensor([1.0, 0.0]).repeat(2000)
    found = symmetric_beta(Keys(5, 0, torch.arange(4000)), alpha)
    assert stats.kstest(found[::2].numpy(), "uniform").pvalue > 1e-3
    assert bool((found[1::2] == 1).all())


def test_mixup_blends_images_in_the_share_of_the_labels() -> None:
    batch, images, mixed = mix(mixup_alpha=1.0)
    own, partner = batch.images[:, 0, 0, 0], partners_of(batch)
    for labels in (mixed["a"], mixed["b"]):
        share, rows = labels.share, labels.rows
        expected = share * own[rows] + (1 - share) * own[partner[rows]]
        torch.testing.assert_close(images[rows], expected[:, None, None, None].expand(-1, 3, SIDE, SIDE))
    assert mixed["a"].share.std() > 0.1


@pytest.mark.parametrize("strengths", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}], ids=["mixup", "cutmix"])
def test_a_mixed_label_needs_both_partners_labels(strengths: dict[str, float]) -> None:
    batch, labels = batch_of()
    _, _, mixed = mix(**strengths)
    partner = partners_of(batch).tolist()
    for name, before in labels.items():
        known = dict(zip(before.rows.tolist(), before.values, strict=True))
        expected = [row for row in known if partner[row] in known]
        assert mixed[name].rows.tolist() == expected and len(expected) < len(known)
        for place, row in enumerate(expected):
            assert torch.equal(mixed[name].others[place], known[partner[row]])
            if name != "seen":
                assert torch.equal(mixed[name].values[place], known[row])


def test_cutmix_shows_the_partner_in_one_minus_the_share() -> None:
    batch, images, mixed = mix(cutmix_alpha=1.0)
    partner, colours = partners_of(batch), batch.images[:, 0, 0, 0]
    cut = 0
    for row, share in zip(mixed["a"].rows.tolist(), mixed["a"].share.tolist(), strict=True):
        shown = images[row, 0]
        if partner[row] == row:
            continue
        others = shown == colours[partner[row]]
        assert bool(((shown == colours[row]) | others).all()) and bool((images[row] == shown).all())
        assert others.float().mean().item() == pytest.approx(1 - share, abs=1e-6)
        place = others.nonzero()
        if len(place):
            low, high = place.min(0).values, place.max(0).values
            assert (high - low + 1).prod() == len(place)  # a rectangle
            cut += 0 < share < 1
    assert cut > 5


def test_a_box_has_about_its_share_of_the_area_and_reaches_everywhere() -> None:
    keys, share = Keys(0, 0, torch.arange(3000)), torch.full((3000,), 0.75)
    found = boxes(keys, share, (32, 48))
    area = found.float().mean((1, 2, 3))
    assert found.shape == (3000, 1, 32, 48)
    assert area.max().item() == pytest.approx(0.25, abs=0.02) and area.min() > 0.04  # a corner: a quarter of it
    assert bool((found.float().mean(0) > 0.02).all())
    whole = boxes(Keys(0, 0, torch.arange(50)), torch.ones(50), (32, 48))
    assert not bool(whole.any())


def test_masks_are_cut_exactly_as_their_images() -> None:
    _, images, mixed = mix(cutmix_alpha=1.0)
    labels = mixed["seen"]
    shown = (images[labels.rows, 0] * COUNT).round().long()
    assert torch.equal(labels.values, shown) and bool((labels.share == 1).all())
    assert any(mask.unique().numel() == 2 for mask in labels.values)


def test_masks_are_never_blended() -> None:
    batch, _, mixed = mix(mixup_alpha=1.0)
    labels, partner = mixed["seen"], partners_of(batch)
    whole = torch.ones(1, SIDE, SIDE, dtype=torch.int64)
    assert torch.equal(labels.values, labels.rows[:, None, None] * whole)
    assert torch.equal(labels.others, partner[labels.rows][:, None, None] * whole)
    assert labels.share.std() > 0.1


def test_with_both_on_each_image_is_mixed_by_one_of_them() -> None:
    batch, images, _ = mix(mixup_alpha=1.0, cutmix_alpha=1.0)
    partner, colours = partners_of(batch), batch.images[:, 0, 0, 0]
    kinds = []
    for row in range(COUNT):
        shown = images[row].unique()
        if partner[row] != row:
            pure = all(colour in (colours[row], colours[partner[row]]) for colour in shown)
            assert pure or len(shown) == 1
            kinds.append(pure)
    assert 5 < sum(kinds) < len(kinds) - 4


def test_the_same_images_of_an_epoch_are_mixed_the_same_way() -> None:
    strengths = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    (_, first, labels), (_, again, others) = mix(**strengths), mix(**strengths)
    assert torch.equal(first, again)
    for name, own in labels.items():
        assert all(
            torch.equal(one, other) for one, other in zip(vars(own).values(), vars(others[name]).values(), strict=True)
        )
    assert not torch.equal(first, mix(seed=1, **strengths)[1])
    assert not torch.equal(first, mix(epoch=1, **strengths)[1])
    batch, mixed = batch_of(order=torch.arange(COUNT).flip(0))
    _, turned = Mixing(mixup_alpha=1.0)(batch.images, mixed, batch, 0)
    shares = dict(zip(turned["a"].rows.tolist(), turned["a"].share.tolist(), strict=True))
    straight = mix(mixup_alpha=1.0)[2]["a"]
    known = dict(zip(straight.rows.tolist(), straight.share.tolist(), strict=True))
    both = [row for row in known if COUNT - 1 - row in shares]
    assert len(both) > 3 and all(known[row] == shares[COUNT - 1 - row] for row in both)  # independent of the order


def test_inputs_are_not_changed() -> None:
    batch, labels = batch_of()
    images, values = batch.images.clone(), labels["seen"].values.clone()
    Mixing(cutmix_alpha=1.0)(batch.images, labels, batch, 0)
    assert torch.equal(batch.images, images) and torch.equal(labels["seen"].values, values)


def test_rows_of_selected_labels_are_counted_from_the_start() -> None:
    labels = Labels(torch.tensor([0, 3, 4, 7]), torch.tensor([9, 8, 7, 6]), torch.tensor([1, 2, 3, 4]), torch.rand(4))
    part = labels.between(3, 7)
    assert part.rows.tolist() == [0, 1] and part.values.tolist() == [8, 7] and part.others.tolist() == [2, 3]
    assert torch.equal(part.share, labels.share[1:3])


@pytest.mark.parametrize(
    ("strengths", "name"), [({"mixup_alpha": -1.0}, "mixup"), ({"cutmix_alpha": math.inf}, "cutmix")]
)
def test_strengths_out_of_range_are_named(strengths: dict[str, float], name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} must be 0 or more; found"):
        Mixing(**strengths)
