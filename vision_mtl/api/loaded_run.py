"""`load_run`: a run's folder as an object. Everything is read when it is first asked for."""
# B images, C channels, D feature width, H W pixels

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vision_mtl.api.files import Figures, Tables
from vision_mtl.api.result import Result
from vision_mtl.api.study import Report, comparisons_table
from vision_mtl.config.options import options_of
from vision_mtl.config.resolve import with_added, with_added_to_pretexts
from vision_mtl.config.run_config import read_section
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import CONFIG, RESULT
from vision_mtl.core.run import Run as Record
from vision_mtl.data.files import missing_path
from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.range_option import RangeGiven
from vision_mtl.data.split_files import run_splits
from vision_mtl.data.value_ranges import KnownRanges
from vision_mtl.evaluation.features import mean_embedding, spread_evenly
from vision_mtl.inference.html import Markup, facts
from vision_mtl.inference.image_files import Frame, frame_of
from vision_mtl.inference.image_inputs import ImageInput, read_image_input
from vision_mtl.inference.prediction_files import task_outputs
from vision_mtl.inference.predictions import BATCH, Predictions, predict
from vision_mtl.inference.predictor import Predictor, require_heads
from vision_mtl.inference.reconstruction import Reconstruction, reconstruct
from vision_mtl.inference.repairs import cell_damage, damage_number, pretext_with_options
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.options import Runtime

if TYPE_CHECKING:
    import pandas as pd

STUDY = "study.json"


def load_run(path: str | PathLike[str], device: str = "auto") -> LoadedRun:
    """A run's folder, or a checkpoint file of one, as an object; `device` is where its model works.

    Raises `UserError` for a path that is not there (naming the nearest) or holds no run.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise missing_path(folder)
    if folder.is_dir() and not any((folder / name).exists() for name in (CONFIG, RESULT, "checkpoints")):
        raise UserError(f"{str(folder)!r} holds no run: there is neither {CONFIG}, {RESULT} nor checkpoints in it.")
    return LoadedRun(folder, device)


class LoadedRun:
    """A finished (or running) run. Arithmetic is float32; the weights are those that `--init_from` would take."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.folder, self.device = folder, device

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config of `config.yaml`; for a checkpoint alone, the description of its model."""
        path = self.folder / CONFIG
        return read_config(path) if path.exists() else dict(self.state)

    @property
    def stage(self) -> str | None:
        """The stage that made the run; None of a checkpoint alone."""
        return self.config.get("stage")

    @property
    def result(self) -> Result:
        """The result, read again at each use; raises `UserError` if the run has not ended yet."""
        found = Record(self.folder, self.stage or "").result()
        if found is None:
            raise UserError(f"{str(self.folder)!r} has no {RESULT} yet: its run has not ended, or was never begun.")
        return Result.read(found)

    @property
    def figures(self) -> Figures:
        """The run's figures by name."""
        return Figures(self.folder / "figures")

    @property
    def tables(self) -> Tables:
        """The run's CSV and parquet files by name, as data frames."""
        return Tables(self.folder)

    @property
    def runs(self) -> dict[str, LoadedRun]:
        """The runs within: those of a study, the two folds of a discovery; none of other stages."""
        inner = [*sorted(self.folder.glob("fold-*")), *sorted((self.folder / "runs").glob("*"))]
        return {found.name: LoadedRun(found, self.device) for found in inner if found.is_dir()}

    @property
    def model(self) -> SharedModel:
        """The network with its weights and all its heads, in evaluation mode, on the device.

        Raises `UserError` where there are no weights, and for a study or a discovery, whose `runs` have models.
        """
        return self._restored[0]

    @property
    def state(self) -> dict[str, Any]:
        """The description in the model's checkpoint: backbone, decoder, pretexts, tasks, class names."""
        return self._restored[1]

    @cached_property
    def _restored(self) -> tuple[SharedModel, dict[str, Any]]:
        if self.runs and not (self.folder / "checkpoints").is_dir():
            names = list(self.runs)
            raise UserError(
                f"{str(self.folder)!r} holds {len(names)} runs and no model: take one of run.runs, for "
                f"example run.runs[{names[0]!r}].model."
            )
        model, state = restore_model(str(self.folder))
        return model.to(Runtime().accelerator(self.device).device), state

    @property
    def frame(self) -> Frame:
        """The size, channels and fit that every image is brought to, and the range of deep images."""
        return self._frame_with(None)

    def _frame_with(self, value_range: RangeGiven) -> Frame:
        size, channels = self.model.backbone.image_size, self.model.backbone.in_chans
        return frame_of(self.state, str(self.folder), size, channels, value_range)

    def images(self, images: ImageInput, *, value_range: RangeGiven = None) -> Tensor:
        """Images as the model takes them: float32 (B, C, H, W) in [0, 1] on the CPU.

        `images` is a path (file, folder or glob), a PIL image, an array of integers or floats (H, W), (H, W, C) or
        (B, H, W, C), a float tensor (B, C, H, W) of the model's size, or a list of these. `value_range` are the two
        numbers of deep images that become 0 and 1, or `full` for the whole range of their integer type; None: those
        that the run was trained with. Raises `UserError` for anything else.
        """
        return read_image_input(images, self._frame_with(value_range))[1]

    @cached_property
    def pool(self) -> Pool:
        """The images that the run's config names, decoded again (or read from its store), with splits and labels."""
        known = {option.name for option in options_of(Data)}  # those of stage data are in the same section
        given = with_added("data", self.config.get("data") or {})
        values = {key: value for key, value in given.items() if key in known}
        data, tasks = read_section("data", values), read_section("tasks", self.config.get("tasks") or {})
        splits, ranges = run_splits(self.folder), KnownRanges.of(str(self.folder), self.state)
        size, channels = self.frame.size, self.frame.channels
        return build_pool(data, tasks, image_size=size, channels=channels, run_splits=splits, known=ranges)

    def samples(self, count: int = 8, split: str = "test", source: str | None = None) -> Tensor:
        """Some of the run's own images, at even steps: (count, C, H, W), or fewer where there are fewer.

        `split` is train, val or test (which no training has seen); `source` one of `run.pool.sources`.
        """
        return self.pool.gather(spread_evenly(self.pool.indices(split, source=source), count))

    def reconstruct(
        self,
        images: ImageInput,
        pretext: str,
        *,
        cell: tuple[int, int] | None = None,
        damage: str | None = None,
        seed: int = 0,
        value_range: RangeGiven = None,
        **options: Any,
    ) -> Reconstruction:
        """Damage images, repair them, measure: `run.reconstruct("cat.jpg", "grid_mask", grid=6, cell=(2, 3))`.

        `images` and `value_range` as in `images`. `options` are the pretext's own and change how it was trained:
        `grid`, `hidden`, `ratio` of grid_mask, `factor` of downsample, `sigma` of blur. `cell` (row, column from 0)
        hides that one of grid_mask's; `damage` names any damage (`"4x4/r0c2"`, `"x4"`); else it is drawn from `seed`
        and the image's place among them. Raises `UserError` for a pretext that the model has no head for, and for
        damage that does not fit.
        """
        if pretext == "grid_mask" and (cell is not None or damage is not None):
            options["hidden"] = "one"
        trained = with_added_to_pretexts(self.state["pretexts"])
        asked = pretext_with_options(self.model, pretext, trained, options)
        frame = self._frame_with(value_range)
        names, pixels = read_image_input(images, frame)
        shape = (self.model.backbone.in_chans, *self.model.backbone.image_size)
        if cell is not None and damage is not None:
            raise UserError(f"cell and damage name the same thing: give one; found {cell} and {damage!r}.")
        wanted = damage if cell is None else cell_damage(asked, cell)
        number = None if wanted is None else damage_number(asked, wanted, shape)
        return reconstruct(self.model, pretext, asked, pixels, names, seed, number, frame.rgb_bands)

    def embed(self, images: ImageInput, *, value_range: RangeGiven = None, crops: int = 1) -> Tensor:
        """(B, D) float32 on the CPU: the backbone's last map, averaged over positions; arguments as in `images`.

        With `crops` above 1 it is the mean over so many fixed crops of each image, as with `probe.crops`. BatchNorm
        uses the run's own statistics; `--stage probe` re-estimates them on clean images first.
        """
        device = next(self.model.parameters()).device
        with torch.no_grad():
            batches = self.images(images, value_range=value_range).split(BATCH)
            found = [mean_embedding(self.model.backbone, batch.to(device), crops).cpu() for batch in batches]
        return torch.cat(found)

    def predict(self, images: ImageInput, *, value_range: RangeGiven = None) -> Predictions:
        """Every head's answer for every image, as `--stage predict` gives it; arguments as in `images`.

        Raises `UserError` if the run has no head for any task.
        """
        require_heads(self.model, str(self.folder))
        frame = self._frame_with(value_range)
        names, pixels = read_image_input(images, frame)
        outputs = task_outputs(self.model.task_specs, self.state)
        return predict(self._answerer, outputs, pixels, names, frame.rgb_bands)

    @cached_property
    def _answerer(self) -> Predictor:
        return Predictor(self.model, Runtime(), self.device)

    @property
    def comparisons(self) -> pd.DataFrame:
        """A study's comparisons, a row each; raises `UserError` for a run of another stage."""
        return comparisons_table(self._study["comparisons"])

    @property
    def report(self) -> Report:
        """A study's report; raises `UserError` for a run of another stage."""
        return Report.of(self.folder, self._study)

    @property
    def _study(self) -> Mapping[str, Any]:
        path = self.folder / STUDY
        if not path.is_file():
            why = "has not ended yet" if self.stage == "study" else f"is no study but a run of {self.stage}"
            raise UserError(f"{str(self.folder)!r} {why}: there is no {STUDY} in it.")
        return json.loads(path.read_text("utf-8"))

    def __repr__(self) -> str:
        return f"LoadedRun({str(self.folder)!r}, stage {self.stage})"

    def _repr_html_(self) -> str:
        found = Record(self.folder, "").result()
        backbone = self.config.get("backbone") or {}
        about = {
            "run": self.folder,
            "stage": self.stage,
            "status": found["status"] if found else "not ended",
            "backbone": backbone.get("name"),
            "image size": " x ".join(map(str, self.config.get("image_size", []))),
            "images seen": f"{found['images_seen']:,}" if found and found["images_seen"] else None,
            "pretexts": ", ".join(self.config.get("pretexts") or {}),
            "tasks": ", ".join(self.config.get("tasks") or {}),
            "figures": ", ".join(self.figures),
            "runs within": len(self.runs) or None,
        }
        return Markup(facts(about) + (Result.read(found).scores_html() if found else ""))
