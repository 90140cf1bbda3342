"""Fitted rules recover relations that they can express, and nothing in noise."""

import pytest
import torch
from torch.nn import functional as F

from vision_mtl.discovery.rules import FoldImages, fit_rules

GENERATOR = torch.Generator().manual_seed(0)
N, SHAPE = 240, (3, 16, 16)
SOURCE = torch.arange(N) % 2
ALL = torch.ones(N, 1, 16, 16, dtype=torch.bool)


def rand(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=GENERATOR)


def fold_of(images: torch.Tensor) -> FoldImages:
    mean = torch.stack([images[s == SOURCE].mean(0) for s in (0, 1)])
    return FoldImages(images, SOURCE, torch.arange(N) % 4 == 3, mean)


def error(rules: dict, name: str, truth: torch.Tensor, damaged: torch.Tensor, base: torch.Tensor) -> float:
    return float((rules[name](damaged, base, SOURCE) - truth).square().mean())


def test_a_coarse_linear_relation_is_recovered_with_an_intercept_for_each_source() -> None:
    coarse = rand(N, 3, 4, 4)
    damaged = F.interpolate(coarse, size=16)
    weights = torch.randn(48, 768, generator=GENERATOR) * 0.05
    missing = (coarse.flatten(1) @ weights).view(N, *SHAPE) + 0.3 * SOURCE.view(-1, 1, 1, 1)
    base = rand(N, *SHAPE)
    rules = fit_rules(fold_of(base + missing), damaged, base, ALL, hides=False)
    assert error(rules, "linear", base + missing, damaged, base) < 0.01 * float(missing.var())


def test_only_scored_pixels_are_repaired() -> None:
    scored = torch.zeros_like(ALL)
    scored[..., :4, :4] = True
    images, base = rand(N, *SHAPE), rand(N, *SHAPE)
    rules = fit_rules(fold_of(images), images, base, scored, hides=True)
    found = rules["linear"](images, base, SOURCE)
    assert torch.equal(found[..., 4:, :], base[..., 4:, :]) and not torch.equal(found, base)
    assert set(rules) == {"mean_colour", "pixel_mean", "linear"}


def test_masks_that_differ_have_a_regression_for_each_cell() -> None:
    """Each half is scored in every second image; a fit to the first image's half alone would leave the other."""
    scored = torch.zeros_like(ALL)
    scored[::2, ..., :8], scored[1::2, ..., 8:] = True, True
    source = torch.arange(N) // 2 % 2
    coarse = rand(N, 3, 4, 4)
    damaged = F.interpolate(coarse, size=16)
    missing = (coarse.flatten(1) @ (torch.randn(48, 768, generator=GENERATOR) * 0.05)).view(N, *SHAPE)
    base = rand(N, *SHAPE)
    images = base + torch.where(scored, missing, 0.0)
    fold = FoldImages(images, source, torch.arange(N) % 5 == 3, torch.zeros(2, *SHAPE))
    found = fit_rules(fold, damaged, base, scored, hides=True)["linear"](damaged, base, source)
    left = (found - base - missing).square()
    for half in (scored, ~scored):
        assert float(left[half.expand_as(left)].mean()) < 0.02 * float(missing.var())


def test_in_noise_the_linear_rule_is_the_mean() -> None:
    images, damaged = rand(N, *SHAPE), rand(N, *SHAPE)
    base = torch.zeros(N, *SHAPE)
    rules = fit_rules(fold_of(images), damaged, base, ALL, hides=False)
    fresh = rand(N, *SHAPE)
    assert error(rules, "linear", fresh, rand(N, *SHAPE), base) == pytest.approx(1 / 12, rel=0.03)
    assert error(rules, "mean_colour", fresh, damaged, base) == pytest.approx(1 / 12, rel=0.02)


def test_levels_recover_any_function_of_the_pixel_by_source() -> None:
    damaged = (rand(N, *SHAPE) * 255).round() / 255
    missing = torch.sin(20 * damaged) * (1 + SOURCE.view(-1, 1, 1, 1))
    rules = fit_rules(fold_of(damaged + missing), damaged, damaged, ALL, hides=False)
    assert error(rules, "levels", damaged + missing, damaged, damaged) < 1e-6


def test_the_filter_recovers_a_convolution() -> None:
    damaged = rand(N, *SHAPE)
    kernel = torch.randn(3, 3, 5, 5, generator=GENERATOR) * 0.1
    missing = F.conv2d(F.pad(damaged, [2] * 4, mode="replicate"), kernel) + 0.2
    rules = fit_rules(fold_of(missing), damaged, torch.zeros_like(damaged), ALL, hides=False)
    assert error(rules, "local_linear", missing, damaged, torch.zeros_like(damaged)) < 1e-6


def test_means_are_by_source() -> None:
    images = rand(N, *SHAPE) * 0.1 + 0.5 * SOURCE.view(-1, 1, 1, 1)
    fold = fold_of(images)
    rules = fit_rules(fold, images, images, ALL, hides=True)
    assert torch.equal(rules["pixel_mean"](images, images, SOURCE), fold.mean[SOURCE])
    colour = rules["mean_colour"](images, images, SOURCE)[:, :, 0, 0]
    torch.testing.assert_close(colour, fold.mean[SOURCE].mean((2, 3)))
