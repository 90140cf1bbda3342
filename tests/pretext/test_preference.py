"""A preference draws damages as often as its weights say, the same ones for the same keys."""

import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.preference import Preference, count_damages, mixture_shares

SHAPE = (3, 16, 16)
PRETEXT = {
    "grid_mask": PRETEXTS.get("grid_mask")(grid=[2, 3], weight=2.0),
    "decolorise": PRETEXTS.get("decolorise")(),
    "downsample": PRETEXTS.get("downsample")(factor=[2, 4]),
}  # 4 + 9, 1 and 2 damages


def preference(*columns: int, value: float = 1.0) -> Preference:
    """Row 0: all damages alike; row 1: only `columns`. Odd images have row 1."""
    table = torch.stack([torch.ones(16), torch.zeros(16)])
    table[1, list(columns)] = value
    return Preference(table, torch.arange(1000) % 2)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_shares_without_a_preference() -> None:
    shares = mixture_shares(PRETEXT, SHAPE)
    assert count_damages(PRETEXT, SHAPE) == [13, 1, 2]
    assert shares.tolist() == pytest.approx([0.5 / 2 / 4] * 4 + [0.5 / 2 / 9] * 9 + [0.25] + [0.125] * 2)


def test_image_weights_are_the_preferred_share() -> None:
    found = preference(13, 14, value=0.5).image_weights(mixture_shares(PRETEXT, SHAPE))
    assert found[:2].tolist() == pytest.approx([1.0, 0.5 * (0.25 + 0.125)])


def test_only_preferred_damages_are_drawn_and_replayed() -> None:
    mixture = Mixture(PRETEXT, preference(5, 14))  # the second cell of the 3 x 3 grid, and factor 2
    keys = Keys(0, 0, torch.arange(400) * 2 + 1)
    _, parts = mixture.prepare(images(400), keys)
    assert [part.name for part in parts] == ["grid_mask", "downsample"]
    cells = parts[0].draw["cells"]
    assert bool((parts[0].draw["grid"] == 1).all()) and bool((cells.int().argmax(1) == 1).all())
    assert bool((parts[1].draw["factor"] == 2).all())
    share = len(parts[0].images) / 400
    assert share == pytest.approx((0.25 / 9) / (0.25 / 9 + 0.125), abs=0.06)
    _, again = mixture.prepare(images(400).flip(0), Keys(0, 0, keys.index.flip(0)))
    assert torch.equal(again[0].source_rows.sort().values, (399 - parts[0].source_rows).sort().values)


def test_a_flat_preference_draws_as_the_mixture_does() -> None:
    mixture = Mixture(PRETEXT, preference(0))
    keys = Keys(0, 0, torch.arange(2000) % 500 * 2, torch.arange(2000))
    names = {part.name: len(part.images) / 2000 for part in mixture.prepare(images(2000), keys)[1]}
    assert names == pytest.approx({"grid_mask": 0.5, "decolorise": 0.25, "downsample": 0.25}, abs=0.03)


def test_what_does_not_suit_an_image_is_passed_over_if_another_does() -> None:
    grey = images(300).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    keys = Keys(0, 0, torch.arange(300) * 2 + 1)
    _, both = Mixture(PRETEXT, preference(13, 15)).prepare(grey, keys)
    assert [part.name for part in both] == ["downsample"]
    _, alone = Mixture(PRETEXT, preference(13)).prepare(grey, keys)
    assert [part.name for part in alone] == ["decolorise"]  # and it carries no loss


def test_a_question_draws_its_own_answer() -> None:
    mixture = Mixture({"rotation": PRETEXTS.get("rotation")()}, Preference(torch.ones(1, 4), torch.zeros(40).long()))
    keys = Keys(0, 0, torch.arange(40))
    _, (part,) = mixture.prepare(images(40), keys)
    assert torch.equal(part.draw["turn"], part.pretext.sample(keys.fold("rotation"), SHAPE)["turn"])
