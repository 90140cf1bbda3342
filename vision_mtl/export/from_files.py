"""Check an export from image files: the written code and graphs against `--stage predict`, from the same bytes.

`graph.check` compares after preprocessing. This check includes it, on images of the run itself.
"""
# B images, C channels, H W pixels

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from vision_mtl.config.options import options_of
from vision_mtl.config.run_config import read_section
from vision_mtl.core.errors import UserError
from vision_mtl.data.assemble import Listed, list_source
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.depth import stacked
from vision_mtl.data.findings import Findings
from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.data.options import Data
from vision_mtl.data.source import Item, Source, holds_files
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.export.graph import Predict, difference_units
from vision_mtl.export.loading import LoadImage
from vision_mtl.inference.image_files import Frame
from vision_mtl.inference.predictor import Predictor
from vision_mtl.models.inference_model import InferenceModel
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.options import Runtime

TOLERANCE = 0.01  # of a probability, or of a number in standard deviations of the labels
TIE = 1e-4  # a label that changes by less is a tie of two classes, decided by rounding
BATCH = 20
SHOWN = 5  # failed files named in a warning
Sample = tuple[str, bytes]  # an image's name, and the bytes of its file


@dataclass
class FileCheck:
    """The result: images compared, (image, task) whose labels differ (None: no task has any), largest difference.

    `what` is what differs, in words; `failed` maps a file with another prediction to the reason; `missing` is the
    reason why no image was compared.
    """

    images: int = 0
    differing: set[tuple[str, str]] | None = None
    largest_difference: float = 0.0
    what: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    @property
    def labels_differing(self) -> int | None:
        """The number of labels that differ; None if no task has any."""
        return None if self.differing is None else len(self.differing)

    @property
    def metrics(self) -> dict[str, Any]:
        """The entry of `result.json`."""
        keys = ("images", "labels_differing", "largest_difference")
        return {**{key: getattr(self, key) for key in keys}, "failed": len(self.failed)}

    def warnings(self) -> list[str]:
        """Return the warning, if any, that names the files that failed, or says that none could be checked."""
        if self.missing is not None:
            return [f"the exported files were not checked from image files: {self.missing}"]
        if not self.failed:
            return []
        listed = "\n".join(f"  {name}: {why}" for name, why in list(self.failed.items())[:SHOWN])
        more = f"\n  ... and {len(self.failed) - SHOWN} more" if len(self.failed) > SHOWN else ""
        return [
            f"of {self.images} images, {len(self.failed)} give another prediction in the exported files than by "
            f"--stage predict:\n{listed}{more}\nSave such files as PNG (8 or 16 bits) "
            "or uncompressed TIFF before the exported model reads them."
        ]


def run_samples(state: Mapping[str, Any], count: int) -> tuple[list[Sample], str | None]:
    """Return up to `count` images of the run with metadata `state` as file bytes, and the reason if there is none.

    They are evenly spaced over each source. Sources that hold pixels give PNG files.
    """
    if not count:
        return [], "export.check_images is 0."
    known = {option.name for option in options_of(Data)}  # an older checkpoint may have others
    data = read_section("data", {key: value for key, value in state["data"].items() if key in known})
    tasks = read_section("tasks", state["tasks"])
    names = list(dict.fromkeys([*(task.source for task in tasks.values()), *(data.unlabelled or [])]))
    try:
        listed = [list_source(name, data, tasks, Findings(keep_going=True)) for name in names]
    except UserError as error:
        return [], f"the run's images are not here any more. {error}"
    found: list[Sample] = []
    for number, source in enumerate(listed):
        wanted = -(-(count - len(found)) // (len(listed) - number))
        found += _encoded(source, spread_evenly(torch.arange(len(source.items)), wanted).tolist())
    return found, None if found else f"no image of {', '.join(names)} can be read."


def _encoded(listed: Listed, rows: Sequence[int]) -> Iterator[Sample]:
    for item in (listed.items[row] for row in rows):
        try:
            yield str(item.path or item.identity), _file_bytes(listed.source, item)
        except UnreadableImage:
            continue  # the run left it out


def _file_bytes(source: Source, item: Item) -> bytes:
    if holds_files(source):
        return source.encoded(item)
    pixels = np.ascontiguousarray(source.read(item))
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.shape[2] == 3 else pixels)[1].tobytes()


def header_sizes(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Return the (height, width) of the image files that Pillow opens, from their headers."""
    found = []
    for _, data in samples:
        with suppress(Exception), Image.open(io.BytesIO(data)) as opened:  # damaged headers raise many types
            found.append((opened.height, opened.width))
    return found


def check_from_files(
    model: SharedModel,
    frame: Frame,
    samples: Sequence[Sample],
    load_image: LoadImage,
    graphs: Mapping[str, Predict],
    missing: str | None = None,
) -> FileCheck:
    """Return the differences of the exported `graphs` on `load_image` from the predictions of `--stage predict`.

    Images that `predict` refuses are left out; those that only the written code refuses have failed. Without graphs the
    model itself runs on what was loaded. `missing` is the reason why there are no samples.
    """
    check, units = FileCheck(what=_what(model.task_specs), missing=missing), difference_units(model.task_specs)
    predictor = Predictor(model, Runtime(), "cpu")
    functions = list(graphs.values()) or [InferenceModel(model).eval()]
    for start in range(0, len(samples), BATCH):
        batch = list(_decoded(frame, samples[start : start + BATCH]))
        if not batch:
            continue
        own = predictor(stacked([pixels for _, _, pixels in batch]))
        loaded = _loaded(check, batch, load_image)
        if loaded:
            rows, images = list(loaded), torch.from_numpy(np.concatenate(list(loaded.values())))
            for graph in functions:
                found = {output: values.detach().numpy() for output, values in graph(images).items()}
                names = [batch[row][0] for row in rows]
                _compare(check, names, {task: own[task][rows] for task in own}, found, model.task_specs, units)
        check.images += len(batch)
    return check


def _decoded(frame: Frame, samples: Sequence[Sample]) -> Iterator[tuple[str, bytes, np.ndarray]]:
    for name, data in samples:
        try:
            yield name, data, frame.decode(data, Path(name)).pixels
        except (UnreadableImage, UserError):
            continue


def _loaded(
    check: FileCheck, batch: Sequence[tuple[str, bytes, np.ndarray]], load_image: LoadImage
) -> dict[int, np.ndarray]:
    """Return row -> (1, C, H, W); rows that the written code refuses are added to the failed ones."""
    found = {}
    for row, (name, data, _) in enumerate(batch):
        try:
            found[row] = load_image(data)
        except Exception as error:  # Pillow and OpenCV raise many types
            check.failed[name] = f"load_image refuses it ({' '.join(str(error).split())[:200]})"
    return found


def _compare(
    check: FileCheck,
    names: Sequence[str],
    own: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    specs: Mapping[str, TaskHeadSpec],
    units: Mapping[str, float],
) -> None:
    """Add the differences of a batch of one graph to `check`."""
    for output, expected in own.items():
        unit = units.get(output, max(1.0, float(np.abs(expected).max())))
        difference = np.abs(found[output] - expected).reshape(len(names), -1).max(1) / unit  # (B,)
        other = np.zeros(len(names), bool)
        if output in specs and (kind := label_kind(specs[output].kind)).classifies_images:
            changed = kind.decide(expected) != kind.decide(found[output])
            other = changed.reshape(len(names), -1).any(1) & ~(difference <= TIE)
            check.differing = (check.differing or set()) | {
                (names[row], output) for row in np.flatnonzero(other).tolist()
            }
        check.largest_difference = max(check.largest_difference, float(np.nan_to_num(difference, nan=np.inf).max()))
        for row in np.flatnonzero(other | ~(difference <= TOLERANCE)).tolist():  # NaN fails too
            what = "another label" if other[row] else "another prediction"
            check.failed.setdefault(names[row], f"{what} of {output}, by {difference[row]:.2g}")


def _what(specs: Mapping[str, TaskHeadSpec]) -> str:
    """Return what is compared, in words."""
    if not specs:
        return "a feature, relative to the largest"
    names = {True: "a probability", False: "a number, in standard deviations of its labels"}
    return " or ".join(dict.fromkeys(names[label_kind(spec.kind).has_classes] for spec in specs.values()))
