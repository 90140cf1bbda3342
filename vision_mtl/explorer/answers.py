"""What a page asks and what it is told: an image brought to the model's size, damaged, repaired, named and placed."""
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
from vision_mtl.data.decode import UnreadableImage, decode_bytes
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import image_tensor
from vision_mtl.discovery.skill import squared_error
from vision_mtl.explorer.damage import BY_HAND, CHAIN, COARSE, MASK, make_part, read_damage
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
from vision_mtl.training.repair import zero_prediction
from vision_mtl.viz.predictions import overlay

MAX_FILE_BYTES = 20_000_000  # of an image that is dropped in: a camera's largest JPEG has half of it
MAX_PIXELS = 50_000_000  # of it decoded: 150 MB in memory
MOST_CELLS = 16  # a side of a grid that is clicked: smaller cells are painted
FACTORS = (2, 4, 8)  # offered beside those that the run was trained on
MOST_DAMAGES = 400  # of one pretext in a list


@dataclass(frozen=True)
class Explorer:
    """A run's network as a page speaks with it. `about` is what the page says of the run."""

    about: Mapping[str, Any]
    frame: Frame
    ask: Predictor
    questions: Mapping[str, TaskOutput]
    repairer: Repairer
    gallery: Gallery | None
    num_neighbours: int

    def start(self) -> dict[str, Any]:
        """What a page needs to draw itself."""
        height, width = self.frame.size
        shape = (self.frame.channels, height, width)
        pretexts = self.repairer.pretexts
        coarse, mask = pretexts.get(COARSE), pretexts.get(MASK)
        factors = _listed(coarse.factor) if isinstance(coarse, Downsample) else []
        by_number = {
            name: own for name, own in pretexts.items() if name not in (*BY_HAND, CHAIN) and own.output != "embedding"
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
                {"name": name, "damages": own.damages(shape)[:MOST_DAMAGES], "asks": own.output == "logits"}
                for name, own in by_number.items()
            ],
            "tasks": [{"name": name, "kind": question.kind} for name, question in self.questions.items()],
            "examples": [
                {"number": number, "labels": self.gallery.labels(number)} for number in self.gallery.examples.tolist()
            ]
            if self.gallery
            else [],
            "num_indexed": len(self.gallery.indexed) if self.gallery else 0,
            "limits": {"bytes": MAX_FILE_BYTES, "pixels": MAX_PIXELS},
        }

    def picture(self, number: int) -> bytes | None:
        """An image of the gallery as PNG; None for any other number."""
        if self.gallery is None or not self.gallery.shows(number):
            return None
        return png(self.gallery.pool.pixels(torch.tensor([number]))[0])

    def open(self, asked: Any) -> dict[str, Any]:
        """`{"data": base64 of a file}` -> the image as the model takes it, and the size that the file has."""
        found = self.frame.bring(_decoded(_field(asked, "data", str, "an image file in base64")))
        return {"picture": _text(png(found.pixels)), "shape": list(found.shape)}

    def answer(self, asked: Any) -> dict[str, Any]:
        """`{"image": {"number"} or {"data"}, "damage": {...}}` -> pictures, scores, every head, the neighbours."""
        pixels, number = self._image(_field(asked, "image", dict, '{"number": ...} or {"data": ...}'))
        images = image_tensor(pixels[None]).to(self.ask.device)
        with torch.no_grad():
            part = make_part(self.repairer.pretexts, read_damage(_field(asked, "damage", dict, "an object")), images)
            found, views = self._undamaged(images) if part is None else self._damaged(part)
            stacked = torch.cat(list(views.values()))
            tasks = self._tasks(stacked, list(views))
            near = self.gallery.neighbours(stacked, self.num_neighbours, number) if self.gallery else []
        return found | {"views": list(views), "tasks": tasks, "neighbours": dict(zip(views, near, strict=False))}

    def _image(self, asked: Mapping[str, Any]) -> tuple[np.ndarray, int | None]:
        """(H, W, C) uint8 and its number in the pool, if it is from there."""
        if "number" not in asked:
            return self.frame.bring(_decoded(_field(asked, "data", str, "an image file in base64"))).pixels, None
        number = _field(asked, "number", int, "the number of an example")
        if self.gallery is None or not self.gallery.shows(number):
            raise UserError(f"there is no example of number {number}: choose one that is shown, or drop in an image.")
        return self.gallery.pool.pixels(torch.tensor([number]))[0], number

    def _undamaged(self, images: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        pictures = {"original": _text(png(_pixels(images)))}
        return {"pictures": pictures, "scores": None, "how": "Nothing is damaged yet."}, {"original": images}

    def _damaged(self, part: Part) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Pictures, scores and words; and the images (1, C, H, W) that heads and neighbours are asked about."""
        pretext, images, draw = part.pretext, part.images, part.draw
        damaged = pretext.corrupt(images, draw)
        views = {"original": images, "damaged": self.repairer.seen(part, damaged)}
        if pretext.output == "logits":
            return self._asked(part, damaged), views
        whole, how = self.repairer.repair(part, damaged)
        untrained = pretext.repair(zero_prediction(pretext, images), damaged, draw)
        found = measure_repairs(part, untrained if whole is None else whole)
        pictures = repair_pictures(found)
        errors = {"classic": found.classic_error, "untrained": squared_error(untrained, images, found.scored)}
        if whole is None:
            pictures = {key: pictures[key] for key in ("original", "damaged", "classic", "classic_error")}
        else:
            errors["repaired"] = found.error
            views["repaired"] = found.repaired
        means = {key: float(error) for key, error in errors.items()}
        scores = means | {"skill": _skill(means), "scored": float(found.scored.float().mean())}
        shown = {key: _text(png(np.round(picture[0] * 255).astype(np.uint8))) for key, picture in pictures.items()}
        return {"pictures": shown, "scores": scores, "how": how}, views

    def _asked(self, part: Part, damaged: Tensor) -> dict[str, Any]:
        """A question's pictures, and what its head said."""
        pretext = part.pretext
        said = torch.softmax(self.repairer.predict(part, damaged)[0], dim=0).tolist()
        names = list(pretext.class_names) or [str(k) for k in range(len(said))]
        true = names[int(pretext.target(part.images, part.draw))]
        shown = pretext.picture(part.images, part.draw)
        question = {"said": dict(zip(names, (round(p, 6) for p in said), strict=True)), "true": true}
        pictures = {key: _text(png(_pixels(i))) for key, i in (("original", part.images), ("damaged", shown))}
        how = f"A question: the run's head for {part.name} answers it, there is no picture to repair."
        return {"pictures": pictures, "scores": None, "how": how, "question": question}

    def _tasks(self, images: Tensor, views: Sequence[str]) -> list[dict[str, Any]]:
        """Every head's answers for images (n, C, H, W), one a view."""
        if not self.questions:
            return []
        answers = dict(zip(views, read_predictions(self.questions, self.ask.answer(images)), strict=True))
        shown = dict(zip(views, images.split(1), strict=True))
        found = []
        for task, question in self.questions.items():
            own = {view: said[task] for view, said in answers.items()}
            record = {
                "name": task,
                "kind": question.kind,
                "meaning": label_kind(question.kind).meaning,
                "classes": question.class_names,
                "answers": own,
            }
            if question.is_dense:
                record["pictures"] = {v: _text(_overlay(shown[v], said["mask"])) for v, said in own.items()}
                record["answers"] = {v: {k: x for k, x in said.items() if k != "mask"} for v, said in own.items()}
            found.append(record)
        return found


def png(pixels: np.ndarray) -> bytes:
    """(H, W, C) uint8 -> a PNG file; grey for one channel, the first three of more."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] < 3 else np.ascontiguousarray(pixels[..., :3]))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _skill(errors: Mapping[str, float]) -> float | None:
    """1 - error / error of the classic repair; None without a repair, or where the classic one is perfect."""
    return 1 - errors["repaired"] / errors["classic"] if "repaired" in errors and errors["classic"] > 0 else None


def _unit(images: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C) in [0, 1]."""
    return images[0].float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _pixels(images: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C) uint8."""
    return np.round(_unit(images) * 255).astype(np.uint8)


def _overlay(image: Tensor, mask: np.ndarray) -> bytes:
    return png(np.round(overlay(_unit(image), mask) * 255).astype(np.uint8))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str) -> np.ndarray:
    """A file in base64 -> (H, W, C) uint8. Raises `UserError` if it is too large, or no image."""
    if len(text) > 4 * MAX_FILE_BYTES / 3 + 4:
        raise UserError(f"the file is larger than {MAX_FILE_BYTES / 1e6:.0f} MB: choose a smaller image.")
    try:
        data = base64.b64decode(text, validate=True)
        return decode_bytes(data, "this file", MAX_PIXELS)
    except binascii.Error as error:
        raise UserError(f"the image is not base64: {error}.") from error
    except UnreadableImage as error:
        raise UserError(f"the file cannot be read: {error.reason}.") from error


def _field(asked: Any, name: str, kind: type, meaning: str) -> Any:
    """A field of what was sent; raises `UserError` if it is missing or of another type."""
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{name} must be {meaning}; found {str(value)[:80]}.")
    return value


def _edges(length: int) -> dict[int, list[int]]:
    """Borders of 1 to `MOST_CELLS` cells along `length` pixels, by their number."""
    return {cells: cell_edges(length, cells) for cells in range(1, min(MOST_CELLS, length) + 1)}


def _listed(value: int | list[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
