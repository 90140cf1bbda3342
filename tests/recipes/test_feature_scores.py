"""What training added to the features: the same probe before and after, on validation images alone."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes.feature_scores import score_features
from vision_mtl.recipes.learned_text import feature_sentence
from vision_mtl.recipes.result_text import result_text

RUN: Any = SimpleNamespace(is_main=True, speaker=None)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    data = {"root": str(tmp_path_factory.mktemp("data")), "val_ratio": 0.3}
    file = {"image_size": "32", "data": data, "tasks": {"faces": {"source": "bundled/faces"}}}
    return resolve("pretrain", file | {"backbone": {"name": "test_resnet"}}, {})


@pytest.fixture(scope="module")
def pool(config: RunConfig) -> Pool:
    return build_pool(config.data, config.tasks, image_size=config.image_size)


def network(collapsed: bool = False) -> Any:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", image_size=(32, 32))
    if collapsed:
        for weights in backbone.parameters():
            torch.nn.init.zeros_(weights)
    return SimpleNamespace(backbone=backbone)


def test_features_are_compared_on_validation_images(
    config: RunConfig, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = []
    original = Pool.indices
    monkeypatch.setattr(Pool, "indices", lambda self, split, **kw: splits.append(split) or original(self, split, **kw))
    found = score_features(config, RUN, network(), network(collapsed=True), pool, torch.inference_mode)["faces"]
    assert set(splits) == {"train", "val"}
    assert found["trained"]["n"] == found["untrained"]["n"] == len(original(pool, "val", task="faces"))
    assert found["untrained"]["value"] == found["majority"]["value"] < found["trained"]["value"]
    assert found["difference"]["low"] > 0 and found["verdict"] == "better" and found["before"] == "random weights"


def test_an_unchanged_network_has_not_learned(config: RunConfig, pool: Pool) -> None:
    start = network()
    found = score_features(config, RUN, deepcopy(start), start, pool, torch.inference_mode)
    assert found["faces"]["difference"]["value"] == 0 and found["faces"]["verdict"] == "undecided"
    text = result_text({"metrics": {"features": found}})
    assert text.startswith("Features of faces are not clearly better or worse than before training (random weights).")
    assert f"{found['faces']['trained']['value']:.3f}" in text and "majority" in text


def test_collapsed_features_are_a_warning_with_and_without_tasks(config: RunConfig, pool: Pool) -> None:
    for tasks in (config.tasks, {}):
        said: list[str] = []
        run: Any = SimpleNamespace(is_main=True, speaker=None, warn=said.append)
        found = score_features(replace(config, tasks=tasks), run, network(True), None, pool, torch.inference_mode)
        assert set(found) == set(tasks)
        assert len(said) == 1 and "the embeddings have collapsed after training" in said[0]


def test_without_the_start_only_the_trained_features_are_scored(config: RunConfig, pool: Pool) -> None:
    found = score_features(config, RUN, network(), None, pool, torch.inference_mode)["faces"]
    assert "trained" in found and not {"untrained", "difference", "verdict"} & found.keys()
    assert feature_sentence({"faces": found}) == ""
    other: Any = SimpleNamespace(is_main=False, speaker=None)
    assert score_features(config, other, network(), None, pool, torch.inference_mode) == {}
