"""The sum that is minimised, taken apart."""

import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.training.objective import step_loss
from vision_mtl.training.repair import (
    SMALLEST_CHANCE,
    PretextObjective,
    draw_drops,
    measure_chance_losses,
    zero_prediction,
)


def test_an_untrained_model_stands_at_chance(make_trainer, pool) -> None:
    trainer = make_trainer(names=("downsample", "decolorise"))
    for head in trainer.model.heads.parameters():
        torch.nn.init.zeros_(head)
    indices = pool.indices("train")[:64]
    loss = step_loss(trainer.model, trainer.objective, (pool.gather(indices), Keys(0, 0, indices)))
    assert loss.total.item() == pytest.approx(1, abs=0.35)
    assert set(loss.shown) == {"downsample", "decolorise"} and loss.rows == 64
    assert all(value == pytest.approx(1, abs=0.35) for value in loss.means().values())


def test_the_total_is_the_mean_over_images_in_units_of_chance(make_trainer, pool) -> None:
    trainer = make_trainer(names=("downsample", "grid_mask"))
    trainer.model.eval()
    indices = pool.indices("train")[:16]
    images, keys = pool.gather(indices), Keys(0, 0, indices)
    with torch.no_grad():
        loss = step_loss(trainer.model, trainer.objective, (images, keys))
        damaged, parts = trainer.objective.mixture.prepare(images, keys)
        total = 0.0
        for part in parts:
            predictions = trainer.model(damaged, parts, draw_drops(keys, parts))
            values = part.pretext.loss(predictions[part.name][0], part.images, part.draw)
            total += (values / trainer.objective.chance_losses[part.name]).sum().item()
    assert loss.total.item() == pytest.approx(total / 16, rel=1e-5)


def test_a_pretext_that_suits_no_image_is_absent_from_chance(make_trainer, pool) -> None:
    mixture = make_trainer().objective.mixture
    grey = pool.gather(pool.indices("train")[:8]).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found = measure_chance_losses(mixture, grey, Keys(0, 0, torch.arange(8)))
    assert "decolorise" not in found and set(found) == {"grid_mask", "downsample", "rotation"}


def test_blank_images_do_not_divide_by_nothing(make_trainer) -> None:
    mixture = make_trainer(names=("downsample",)).objective.mixture
    found = measure_chance_losses(mixture, torch.full((4, 3, 32, 32), 0.5), Keys(0, 0, torch.arange(4)))
    assert found == {"downsample": SMALLEST_CHANCE}


def test_zeros_have_the_heads_shape(make_trainer) -> None:
    pretexts = make_trainer().objective.mixture.pretexts
    images = torch.zeros(2, 3, 8, 8)
    assert zero_prediction(pretexts["rotation"], images).shape == (2, 4)
    assert zero_prediction(pretexts["decolorise"], images).shape == (2, 2, 8, 8)
    assert isinstance(make_trainer().objective, PretextObjective)
