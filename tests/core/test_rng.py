"""Philox against the authors' test vectors, and the properties of keyed draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.rng import WORD, Keys, _encrypted, philox

# Random123's kat_vectors file, philox4x32-10: (counter, key, result), 32-bit words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
]


def keys(count: int = 4096, seed: int = 0, epoch: int = 0) -> Keys:
    return Keys(seed, epoch, torch.arange(count))


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], result: tuple[int, ...]) -> None:
    assert philox(torch.tensor(counter), key).tolist() == list(result)


def test_the_device_implementation_equals_the_numpy_one() -> None:
    counter = torch.randint(0, 2**32, (4, 50, 3), generator=torch.Generator().manual_seed(0))
    key = (0xDEADBEEF, 0xFFFFFFFF)
    on_device = _encrypted(counter.view(4, -1), key)
    assert torch.equal(on_device.view(4, 50, 3), philox(counter, key))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_a_row_depends_on_its_own_key(index: list[int], seed: int, epoch: int) -> None:
    whole = Keys(seed, epoch, torch.tensor(index)).bits(5)
    for row, one in enumerate(index):
        assert torch.equal(Keys(seed, epoch, torch.tensor([one])).bits(5)[0], whole[row])


def test_every_part_of_the_key_matters() -> None:
    base = keys(8).bits(2)
    others = [
        keys(8, seed=1).bits(2),
        keys(8, seed=1 << 32).bits(2),
        keys(8, epoch=1).bits(2),
        keys(8).fold("x").bits(2),
        Keys(0, 0, torch.arange(8), instance=torch.ones(8, dtype=torch.int64)).bits(2),
    ]
    for other in others:
        assert not bool((base == other).any())


def test_an_epoch_of_each_image_equals_one_epoch_for_all() -> None:
    whole = Keys(3, 7, torch.arange(5)).bits(3)
    assert torch.equal(Keys(3, torch.full((5,), 7), torch.arange(5)).bits(3), whole)


def test_skipping_equals_drawing() -> None:
    drawn, skipped = keys(8), keys(8)
    drawn.bits(5)
    skipped.skip(5)
    assert torch.equal(drawn.bits(3), skipped.bits(3))


def test_a_stream_advances_and_restarts() -> None:
    stream = keys(8)
    first, second = stream.bits(4), stream.bits(4)
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat((first, second), dim=1), keys(8).bits(8))
    assert torch.equal(stream.select(torch.arange(8)).bits(4), first)


def test_uniform_is_uniform() -> None:
    values = keys(20_000).uniform(4).numpy()
    assert values.min() >= 0 and values.max() < 1
    counts = np.histogram(values, bins=100, range=(0, 1))[0]
    expected = values.size / 100
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert 50 < chi2 < 160  # 99 degrees of freedom: both ends far beyond one in ten thousand


def test_neighbouring_images_are_uncorrelated() -> None:
    values = keys(20_000).uniform().double()
    correlation = torch.corrcoef(torch.stack((values[:-1], values[1:])))[0, 1]
    assert abs(correlation) < 4 / 20_000**0.5


def test_integers_stay_below_a_bound_of_each_image() -> None:
    bound = torch.arange(1, 4097)
    drawn = keys(4096).integers(bound)
    assert bool((drawn >= 0).all()) and bool((drawn < bound).all())
    assert sorted(keys(4096).integers(5).unique().tolist()) == [0, 1, 2, 3, 4]


def test_permutations_are_permutations_and_fair() -> None:
    orders = keys(6000).permutation(5)
    assert torch.equal(orders.sort(1).values, torch.arange(5).expand(6000, 5))
    share = (orders[:, :, None] == torch.arange(5)).float().mean(0)
    assert bool(((share - 0.2).abs() < 0.03).all())


def test_choice_follows_its_weights() -> None:
    drawn = keys(20_000).choice(torch.tensor([1.0, 0.0, 3.0, 0.0]))
    counts = drawn.bincount(minlength=4)
    assert counts[1] == counts[3] == 0
    assert counts[0] / 20_000 == pytest.approx(0.25, abs=0.02)


def test_normal_is_normal() -> None:
    values = keys(20_000).normal(3)
    assert bool(values.isfinite().all())
    assert values.mean().item() == pytest.approx(0, abs=0.02)
    assert values.std().item() == pytest.approx(1, abs=0.02)
    assert values.pow(4).mean().item() == pytest.approx(3, abs=0.15)
