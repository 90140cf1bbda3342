"""Handlers of the page's requests: open an image, damage and repair it, predict every task, find neighbours."""
# b = 1 image, C channels, H W pixels

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.shapes import cell_edges
from vision_mtl.data.decode import UnreadableImage, decode_raw
from vision_mtl.data.depth import Raw, bytes_of
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import image_tensor
from vision_mtl.discovery.measure import START
from vision_mtl.discovery.skill import squared_error
from vision_mtl.explorer.damage import BY_HAND, CHAIN, COARSE, MASK, NOT_SHOWN, make_part, read_damage
from vision_mtl.explorer.gallery import Gallery
from vision_mtl.explorer.repairing import Repairer
from vision_mtl.inference.image_files import Frame
from vision_mtl.inference.pictures import repair_pictures
from vision_mtl.inference.prediction_files import TaskOutput, read_predictions
from vision_mtl.inference.predictor import Predictor
from vision_mtl.inference.repairs import measure_repairs
from vision_mtl.pretext.downsample import Downsample
from vision_mtl.pretext.grid import parse_grids
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Part
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.predictions import overlay

MAX_FILE_BYTES = 20_000_000  # of an image file: the largest JPEGs of cameras have half of it
MAX_PIXELS = 50_000_000  # of an image file: 150 MB in memory
MAX_CELLS = 16  # rows or columns of a grid to click: smaller cells are painted
FACTORS = (2, 4, 8)  # offered in addition to those that the run was trained on
MAX_DAMAGES = 400  # of one pretext in a list


@dataclass(frozen=True)
class Explorer:
    """Handles the page's requests with a run's network. `about` describes the run on the page."""

    about: Mapping[str, Any]
    frame: Frame
    predictor: Predictor
    outputs: Mapping[str, TaskOutput]
    repairer: Repairer
    gallery: Gallery | None
    num_neighbours: int

    def start(self) -> dict[str, Any]:
        """Return what the page shows at its start."""
        height, width = self.frame.size
        shape = (self.frame.channels, height, width)
        pretexts = self.repairer.pretexts
        coarse, mask = pretexts.get(COARSE), pretexts.get(MASK)
        factors = _listed(coarse.factor) if isinstance(coarse, Downsample) else []
        by_number = {
            name: pretext
            for name, pretext in pretexts.items()
            if name not in (*BY_HAND, CHAIN) and pretext.output not in NOT_SHOWN
        }
        return {
            "about": dict(self.about),
            "size": [height, width],
            "channels": self.frame.channels,
            "heads": sorted(pretexts),
            "grids": [list(size) for size in parse_grids(mask.grid)] if isinstance(mask, GridMask) else [],
            "edges": {"rows": _edges(height), "columns": _edges(width)},
            "factors": {
                "offered": sorted({f for f in (*FACTORS, *factors) if 1 < f <= min(height, width)}),
                "trained": factors,
            },
            "has_colour": self.frame.channels == 3,
            "others": [
                {
                    "name": name,
                    "damages": pretext.damages(shape)[:MAX_DAMAGES],
                    "classifies": pretext.output == "logits",
                }
                for name, pretext in by_number.items()
            ],
            "tasks": [{"name": name, "kind": output.kind} for name, output in self.outputs.items()],
            "examples": [
                {"number": number, "labels": self.gallery.labels(number)} for number in self.gallery.examples.tolist()
            ]
            if self.gallery
            else [],
            "num_indexed": len(self.gallery.indexed) if self.gallery else 0,
            "limits": {"bytes": MAX_FILE_BYTES, "pixels": MAX_PIXELS},
        }

    def picture(self, number: int) -> bytes | None:
        """Return an image of the gallery as PNG; None for any other number."""
        if self.gallery is None or not self.gallery.shows(number):
            return None
        return self._png(self.gallery.pool.pixels(torch.tensor([number]))[0])

    def open(self, sent: Any) -> dict[str, Any]:
        """Return the image of `{"data": base64 of a file}` at the model's size, and the size of the file's image."""
        found = self.frame.fit_raw(_decoded(_field(sent, "data", str, "an image file in base64")))
        return {"picture": _text(self._png(found.pixels)), "shape": list(found.shape)}

    def repair(self, sent: Any) -> dict[str, Any]:
        """Return pictures, scores, predictions and neighbours for `{"image": {...}, "damage": {...}}`.

        The image is `{"number": ...}` of an example or `{"data": base64 of a file}`.
        """
        pixels, number = self._image(_field(sent, "image", dict, '{"number": ...} or {"data": ...}'))
        images = image_tensor(pixels[None]).to(self.predictor.device)
        with torch.no_grad():
            part = make_part(self.repairer.pretexts, read_damage(_field(sent, "damage", dict, "an object")), images)
            found, views = self._undamaged(images) if part is None else self._damaged(part)
            stacked = torch.cat(list(views.values()))
            tasks = self._tasks(stacked, list(views))
            near = self.gallery.neighbours(stacked, self.num_neighbours, number) if self.gallery else []
        return found | {"views": list(views), "tasks": tasks, "neighbours": dict(zip(views, near, strict=False))}

    def _image(self, sent: Mapping[str, Any]) -> tuple[np.ndarray, int | None]:
        """Return pixels (H, W, C), and the image's number in the pool if it has one."""
        if "number" not in sent:
            return self.frame.fit_raw(_decoded(_field(sent, "data", str, "an image file in base64"))).pixels, None
        number = _field(sent, "number", int, "the number of an example")
        if self.gallery is None or not self.gallery.shows(number):
            raise UserError(f"there is no example of number {number}: choose one on the page, or open a file.")
        return self.gallery.pool.pixels(torch.tensor([number]))[0], number

    def _undamaged(self, images: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        pictures = {"original": _text(self._png(_pixels(images)))}
        return {"pictures": pictures, "scores": None, "how": "Nothing is damaged yet."}, {"original": images}

    def _damaged(self, part: Part) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return pictures, scores and an explanation; and images (1, C, H, W) for predictions and neighbours."""
        pretext, images, draw = part.pretext, part.images, part.draw
        damaged = pretext.corrupt(images, draw)
        views = {"original": images, "damaged": self.repairer.seen(part, damaged)}
        if pretext.output == "logits":
            return self._classified(part, damaged), views
        prediction, how = self.repairer.repair(part, damaged)
        rules = self.repairer.unlearned(part, damaged)
        found = measure_repairs(part, rules["untrained"] if prediction is None else prediction)
        pictures = repair_pictures(found, self.frame.rgb_bands)
        errors = {name: float(squared_error(repair, images, found.scored)) for name, repair in rules.items()}
        scores: dict[str, Any] = {
            "classic": errors["classic"],
            "untrained": errors["untrained"],
            "start": errors.get(START),
        }
        best = min(errors, key=errors.__getitem__)
        if prediction is None:
            pictures = {key: pictures[key] for key in ("original", "damaged", "classic", "classic_error")}
            repaired = None
        else:
            repaired = scores["repaired"] = float(found.error)
            views["repaired"] = found.repaired
        scores |= {"skill": _skill(repaired, errors["classic"]), "skill_learned": _skill(repaired, errors[best])}
        scores |= {"best_rule": best, "best": errors[best], "scored": float(found.scored.float().mean())}
        shown = {key: _text(png(np.round(picture[0] * 255).astype(np.uint8))) for key, picture in pictures.items()}
        return {"pictures": shown, "scores": scores, "how": how}, views

    def _classified(self, part: Part, damaged: Tensor) -> dict[str, Any]:
        """Return the pictures of a classification pretext, and its head's prediction."""
        pretext = part.pretext
        probabilities = torch.softmax(self.repairer.predict(part, damaged)[0], dim=0).tolist()
        names = list(pretext.class_names) or [str(k) for k in range(len(probabilities))]
        true = names[int(pretext.target(part.images, part.draw))]
        shown = pretext.picture(part.images, part.draw)
        rounded = (round(p, 6) for p in probabilities)
        classes = {"probabilities": dict(zip(names, rounded, strict=True)), "true": true}
        pictures = {key: _text(self._png(_pixels(i))) for key, i in (("original", part.images), ("damaged", shown))}
        how = f"The run's head for {part.name} predicts a class: there is no picture to repair."
        return {"pictures": pictures, "scores": None, "how": how, "classification": classes}

    def _tasks(self, images: Tensor, views: Sequence[str]) -> list[dict[str, Any]]:
        """Return every task's predictions for images (n, C, H, W), one for each view."""
        if not self.outputs:
            return []
        by_view = dict(zip(views, read_predictions(self.outputs, self.predictor.predict(images)), strict=True))
        shown = dict(zip(views, images.split(1), strict=True))
        found = []
        for task, output in self.outputs.items():
            predictions = {view: by_task[task] for view, by_task in by_view.items()}
            record = {
                "name": task,
                "kind": output.kind,
                "meaning": label_kind(output.kind).meaning,
                "classes": output.class_names,
                "predictions": predictions,
            }
            if output.is_dense:
                masks = {view: prediction.pop("mask") for view, prediction in predictions.items()}
                record["pictures"] = {view: _text(self._overlay(shown[view], mask)) for view, mask in masks.items()}
            found.append(record)
        return found

    def _png(self, pixels: np.ndarray) -> bytes:
        """Return pixels (H, W, C) as a PNG file of the bands that are shown."""
        return png(shown_bands(bytes_of(pixels), self.frame.rgb_bands))

    def _overlay(self, image: Tensor, mask: np.ndarray) -> bytes:
        shown = shown_bands(_unit(image), self.frame.rgb_bands)
        return png(np.round(overlay(shown, mask) * 255).astype(np.uint8))


def png(pixels: np.ndarray) -> bytes:
    """Return pixels (H, W, 1 or 3) uint8 as a PNG file."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _skill(repaired: float | None, rule: float) -> float | None:
    """Return 1 - error / error of a rule; None without a repair, or if the rule is perfect."""
    return 1 - repaired / rule if repaired is not None and rule > 0 else None


def _unit(images: Tensor) -> np.ndarray:
    """Return an image (1, C, H, W) as (H, W, C) in [0, 1]."""
    return images[0].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _pixels(images: Tensor) -> np.ndarray:
    """Return an image (1, C, H, W) as (H, W, C) uint8."""
    return np.round(_unit(images) * 255).astype(np.uint8)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str) -> Raw:
    """Return a file in base64 as its own numbers (H, W, C); raises `UserError` if it is too large or not an image."""
    if len(text) > 4 * MAX_FILE_BYTES / 3 + 4:
        raise UserError(f"the file is larger than {MAX_FILE_BYTES / 1e6:.0f} MB: choose a smaller image.")
    try:
        data = base64.b64decode(text, validate=True)
        return decode_raw(data, "this file", MAX_PIXELS)
    except binascii.Error as error:
        raise UserError(f"the image is not base64: {error}.") from error
    except UnreadableImage as error:
        raise UserError(f"the file cannot be read: {error.reason}.") from error


def _field(sent: Any, name: str, kind: type, meaning: str) -> Any:
    """Return a field of a request; raises `UserError` if it is missing or of another type."""
    value = sent.get(name) if isinstance(sent, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{name} must be {meaning}; found {str(value)[:80]}.")
    return value


def _edges(length: int) -> dict[int, list[int]]:
    """Return the borders of 1 to `MAX_CELLS` cells along `length` pixels, by the number of cells."""
    return {cells: cell_edges(length, cells) for cells in range(1, min(MAX_CELLS, length) + 1)}


def _listed(value: int | list[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
