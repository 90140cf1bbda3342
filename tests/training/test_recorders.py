"""Scalars, pictures, features and the config reach TensorBoard and each service, without a network."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.training import recorders
from vision_mtl.training.options import Track
from vision_mtl.training.recorders import Recorder, open_recorders

SERVICES = ("mlflow", "wandb", "trackio")
CONFIG = "stage: pretrain\noptim:\n  steps: 7\n  betas: [0.9, 0.95]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "config.yaml").write_text(CONFIG)
    return tmp_path / "a run"


def picture() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def record(found: list[Recorder], step: int) -> None:
    for recorder in found:
        recorder.scalars(step, {"train/loss": 0.5 + step})
        recorder.figure(step, "repairs", picture())
        features = torch.arange(12.0).view(4, 3)
        recorder.embedding(step, "features_pets", features, ["cat", "dog", "cat", "dog"], torch.rand(4, 3, 8, 8))
        recorder.close()


def test_tensorboard_has_scalars_pictures_features_and_config(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record(open_recorders(folder, 0, True, "none", "p"), 10)
    record(open_recorders(folder, 10, True, "none", "p"), 20)  # a resumed run has its config already
    events = EventAccumulator(str(folder), {"images": 0})
    events.Reload()
    # files of the same second are read in the order of their names: .9 after .10
    assert {event.step: event.value for event in events.Scalars("train/loss")} == {10: 10.5, 20: 20.5}
    assert len(events.Images("repairs")) == 2
    (config,) = events.Tensors("config/text_summary")
    assert "steps: 7" in config.tensor_proto.string_val[0].decode()
    (labels,) = folder.glob("00010/*/metadata.tsv")
    assert labels.read_text().split() == ["cat", "dog", "cat", "dog"]
    assert "features_pets" in (folder / "projector_config.pbtxt").read_text()


class Stub:
    """Records the calls to one of accelerate's trackers."""

    calls: list[tuple[str, Any]]

    def __init__(self, project: str, **options: Any) -> None:
        self.calls = Stub.calls = [("project", project), ("options", options)]
        self.tracker = type("Record", (), {"id": "record-1"})

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **more: self.calls.append((name, given[0] if given else more))


def test_a_service_gets_the_config_once_and_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Stub)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    record(open_recorders(folder, 0, False, "wandb", "pets"), 10)
    names = [name for name, _ in Stub.calls]
    assert names == ["project", "options", "start", "store_init_configuration", "log", "log_images", "finish"]
    calls = dict(Stub.calls)
    assert calls["project"] == "pets" and calls["options"]["dir"] == str(folder) and calls["options"]["id"] is None
    assert calls["store_init_configuration"] == {"stage": "pretrain", "optim.steps": 7, "optim.betas": "[0.9, 0.95]"}
    assert calls["log"] == {"train/loss": 10.5} and calls["log_images"]["repairs"][0].shape == (100, 100, 3)
    record(open_recorders(folder, 10, False, "wandb", "pets"), 20)
    calls = dict(Stub.calls)
    assert calls["options"]["id"] == "record-1" and calls["options"]["resume"] == "allow"
    assert "store_init_configuration" not in calls


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"track\.tracker mlflow needs .*: pip install mlflow-skinny "):
        Track(tracker="mlflow")
    assert Track().tracker == "none"


@pytest.mark.parametrize("service", SERVICES)
def test_a_real_service_without_a_network(
    service: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(service) is None:
        pytest.skip(f"{service} is an extra: pip install -r requirements-tracking.txt")
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder's variable when it is imported
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_DIR", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    record(open_recorders(folder, 0, False, service, "pets"), 10)
    record(open_recorders(folder, 10, False, service, "pets"), 20)
    monkeypatch.delenv("TRACKIO_DIR", raising=False)  # the recorder sets it
    assert capsys.readouterr().out == ""
    known = json.loads((folder / "tracker.json").read_text())
    assert known["tracker"] == service and known["id"]
    kept = {path.suffix for path in folder.rglob("*") if path.is_file() and path.stat().st_size}
    assert {"mlflow": {".png"}, "wandb": {".wandb", ".png"}, "trackio": {".db"}}[service] <= kept
    if service == "mlflow":
        import mlflow

        run = mlflow.get_run(known["id"])
        assert run.data.metrics == {"train/loss": 20.5} and run.data.params["optim.steps"] == "7"
        assert [m.value for m in mlflow.MlflowClient().get_metric_history(known["id"], "train/loss")] == [10.5, 20.5]
