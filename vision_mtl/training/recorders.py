"""Record scalars, pictures and features in TensorBoard and in one of accelerate's trackers.

A tracker keeps its data in the run's folder, unless its environment variables (WANDB_MODE, WANDB_DIR,
MLFLOW_TRACKING_URI, TRACKIO_DIR) choose another place. A resumed run continues its record there.
"""
# n images, D feature width, C channels, H W pixels

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import yaml
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import CONFIG
from vision_mtl.core.text import file_stem, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Service = Literal["none", "mlflow", "wandb", "trackio"]
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb", "trackio": "trackio"}  # the package mlflow works as well
TRACKER_FILE = "tracker.json"  # in a run's folder: the id of its record at the service


class Recorder(Protocol):
    """Receives the scalars, pictures and features of a run."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record scalars by name."""

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """Record a matplotlib figure."""

    def embedding(self, step: int, name: str, features: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """Record features (n, D) of images (n, C, H, W) in [0, 1], with a label for each."""

    def close(self) -> None:
        """Finish writing."""


def open_recorders(folder: Path, step: int, tensorboard: bool, service: Service, project: str) -> list[Recorder]:
    """Return the recorders that the options ask for; each gets the run's config. `step`: steps taken already."""
    found: list[Recorder] = [TensorBoard(folder, step)] if tensorboard else []
    return found + ([Remote(folder, service, project)] if service != "none" else [])


def require_package(service: Service) -> None:
    """Raise `UserError` if the package that the service needs is not installed."""
    if service != "none" and importlib.util.find_spec(service) is None:
        raise UserError(
            f"track.tracker {service} needs a package that is not installed: pip install {PACKAGES[service]} (versions "
            "that work are in requirements-tracking.txt), or leave it out: TensorBoard events are written anyway."
        )


class TensorBoard:
    """Writes TensorBoard events to the run's folder; features appear in its projector."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # late: it takes a second

        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        if not step:
            self.writer.add_text("config", "".join(f"    {line}\n" for line in _config_text(folder).splitlines()), 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See `Recorder`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """See `Recorder`."""
        self.writer.add_figure(name, figure, step, close=False)

    def embedding(self, step: int, name: str, features: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """See `Recorder`."""
        rows = [one_line(label) for label in labels]  # the projector reads one line per image and skips blank ones
        self.writer.add_embedding(features, rows, images, step, file_stem(name))

    def close(self) -> None:
        """See `Recorder`."""
        self.writer.close()


class Remote:
    """Sends scalars and pictures to MLflow, Weights & Biases or Trackio, through accelerate's tracker."""

    def __init__(self, folder: Path, service: Service, project: str) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # late: it imports every tracker that is installed

        self.service = service
        known = _recall(folder, service)
        options = {"mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}[service](folder, known)
        self.tracker = LOGGER_TYPE_TO_CLASS[service](project, **options)
        with redirect_stdout(io.StringIO()):  # some print a greeting, but stdout is for the result alone
            self.tracker.start()
        atomic_write_json(folder / TRACKER_FILE, {"tracker": service, "id": known or self._own_id(folder)})
        if known is None:
            self.tracker.store_init_configuration(_flat(yaml.safe_load(_config_text(folder)) or {}))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See `Recorder`."""
        self.tracker.log(values, step=step)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """See `Recorder`."""
        if self.service == "mlflow":
            self.tracker.log_figure(figure, f"{name}/{step:08d}.png")
        elif self.service == "wandb":
            self.tracker.log_images({name: [_pixels(figure)]}, step=step)
        else:
            import trackio

            self.tracker.log({name: trackio.Image(_pixels(figure))}, step=step)

    def embedding(self, step: int, name: str, features: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """Do nothing: only TensorBoard has a projector."""

    def close(self) -> None:
        """See `Recorder`."""
        with redirect_stdout(io.StringIO()):
            self.tracker.finish()

    def _own_id(self, folder: Path) -> str:
        """Return the record's id at the service, by which a resumed run finds it."""
        if self.service == "mlflow":
            return self.tracker.tracker.info.run_id
        return self.tracker.tracker.id if self.service == "wandb" else folder.absolute().name


def _mlflow(folder: Path, known: str | None) -> dict[str, Any]:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        has_database = importlib.util.find_spec("sqlalchemy") is not None  # mlflow-skinny does not install it
        if not has_database:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3.7 and later refuse files without it
        store = folder.absolute() / ("mlflow.db" if has_database else "mlflow")
        mlflow.set_tracking_uri(f"sqlite:///{store}" if has_database else store.as_uri())
    return {"run_id": known, "run_name": folder.absolute().name, "logging_dir": (folder / "mlflow").absolute().as_uri()}


def _wandb(folder: Path, known: str | None) -> dict[str, Any]:
    os.environ.setdefault("WANDB_SILENT", "true")  # its banner and summary repeat ours
    place = {} if "WANDB_DIR" in os.environ else {"dir": str(folder)}
    return {"name": folder.absolute().name, "id": known, "resume": "allow" if known else None, **place}


def _trackio(folder: Path, known: str | None) -> dict[str, Any]:
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute() / "trackio"))  # read when trackio is imported
    return {"name": known or folder.absolute().name, "resume": "allow", "embed": False}


def _recall(folder: Path, service: Service) -> str | None:
    """Return the id of the run's record at the service, or None if it has none."""
    try:
        found = json.loads((folder / TRACKER_FILE).read_text("utf-8"))
        return str(found["id"]) if found["tracker"] == service else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _config_text(folder: Path) -> str:
    file = folder / CONFIG
    return file.read_text("utf-8") if file.is_file() else ""


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping by dotted names, with lists as text."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = inner if isinstance(inner, str | int | float | bool) else json.dumps(inner)
    return found


def _pixels(figure: Figure) -> np.ndarray:
    """Return a figure's pixels (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
