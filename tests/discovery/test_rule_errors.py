"""Errors without a network are computed once for the same images, options and sample, and never reused for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.discovery import rule_errors
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.rule_errors import Column, cached_rule_errors, usable_indices
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture

COUNT, SIDE = 60, 8


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (COUNT, SIDE, SIDE, 3))


def errors_of(pool_of, cache: Path | None, seed: int = 0, first: int = 40, **options: Any) -> Column:
    """Errors on the images from `first`; rules are fitted to those before."""
    pool, mixture = pool_of(images(seed)), Mixture({"grid_mask": PRETEXTS.get("grid_mask")(grid=2, **options)})
    training = fold_images(pool, torch.arange(first), torch.device("cpu"))
    scored = torch.arange(first, COUNT)
    return cached_rule_errors(
        mixture, "grid_mask", pool, scored, training, torch.device("cpu"), lambda what: None, cache
    )


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise where errors are computed."""
    monkeypatch.setattr(rule_errors, "rule_errors", lambda *given: pytest.fail("computed again"))


def test_equal_runs_compute_once(pool_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, first = errors_of(pool_of, None), errors_of(pool_of, tmp_path, weight=2.0)
    forbid(monkeypatch)
    again = errors_of(pool_of, tmp_path)  # the weight in the mixture changes no error
    assert without.keys() == first.keys() == again.keys() >= {"untrained", "classic", "linear", "first"}
    for key, values in without.items():
        np.testing.assert_array_equal(first[key], values)
        np.testing.assert_array_equal(again[key], values)


@pytest.mark.parametrize("change", [{"seed": 1}, {"first": 30}, {"residual": False}, {"hidden": "ratio"}])
def test_what_errors_depend_on_is_in_the_key(pool_of, tmp_path: Path, change: dict[str, Any]) -> None:
    errors_of(pool_of, tmp_path)
    changed = errors_of(pool_of, tmp_path, **change)
    assert len(list(tmp_path.glob("rules-grid_mask-*.npz"))) == 2
    np.testing.assert_array_equal(changed["untrained"], errors_of(pool_of, None, **change)["untrained"])


def test_a_damaged_file_is_computed_again(pool_of, tmp_path: Path) -> None:
    expected = errors_of(pool_of, tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-200])
    np.testing.assert_array_equal(errors_of(pool_of, tmp_path)["linear"], expected["linear"])
    assert np.load(file)["linear"].shape == expected["linear"].shape, "and replaced"


def test_with_pretexts_of_plugins_nothing_is_kept(pool_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRETEXTS._found, "of_a_plugin", PRETEXTS.get("grid_mask"))
    errors_of(pool_of, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_only_the_cache(pool_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(rule_errors, "atomic_write_bytes", full)
    assert errors_of(pool_of, tmp_path)["linear"].shape == (COUNT - 40, 4)


def test_a_pretext_is_never_asked_about_no_image(pool_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PRETEXTS.get("decolorise"), "usable", lambda self, images: pytest.fail("empty batch"))
    assert len(usable_indices(pool_of(images()), PRETEXTS.get("decolorise")(), torch.arange(0))) == 0
