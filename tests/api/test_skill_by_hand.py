"""`skill_learned` of a run, computed with numpy from repairs: the API's, the start's, and those of every rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vision_mtl.api.loaded_run import LoadedRun
from vision_mtl.config.resolve import resolve
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.rules import fit_rules
from vision_mtl.recipes.build import build_pretexts
from vision_mtl.recipes.repair import build_network


def repairs_without_training(run: LoadedRun, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Repairs (n, C, H, W) of images downsampled by 4, by the network's start, the pretext's rules and fitted ones."""
    config = resolve("pretrain", run.config, {})
    pretext = config.pretexts["downsample"]
    training = fold_images(run.pool, run.pool.indices("train"), torch.device("cpu"))
    draws = [{"factor": torch.full((len(some),), 4)} for some in (images, training.images)]
    seen, known = pretext.corrupt(images, draws[0]), pretext.corrupt(training.images, draws[1])
    fitted = fit_rules(training, known, known, torch.ones_like(known[:, :1], dtype=torch.bool), hides=False)
    run_of_start = LoadedRun(run.folder, "cpu")
    run_of_start.model.load_state_dict(build_network(config, build_pretexts(config)).state_dict())
    source = torch.zeros(len(images), dtype=torch.int64)
    return {
        "start": run_of_start.reconstruct(images, "downsample", damage="x4").repaired,
        **pretext.rules(images, draws[0]),
        **{name: rule(seen, seen, source).clamp(0, 1) for name, rule in fitted.items()},
    }


def test_skill_learned_is_one_minus_the_error_over_that_of_the_best_rule(
    pretrained: LoadedRun, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)  # the run's source is relative to it
    images = pretrained.pool.gather(pretrained.pool.indices("test"))
    repairs = repairs_without_training(pretrained, images)
    repairs["own"] = pretrained.reconstruct(images, "downsample", damage="x4").repaired
    errors = {n: float(((r.numpy() - images.numpy()) ** 2).mean((1, 2, 3)).sum()) for n, r in repairs.items()}
    own = errors.pop("own")
    found = pretrained.result.metrics["skill_learned"]["downsample"]
    assert found["reference"] == min(errors, key=errors.get)
    assert found["value"] == pytest.approx(1 - own / min(errors.values()), abs=2e-3)
    classic = pretrained.result.metrics["skill"]["downsample"]["value"]
    assert classic == pytest.approx(1 - own / errors["bicubic"], abs=2e-3)
    assert np.isfinite(found["value"]) and found["n"] == len(images)
