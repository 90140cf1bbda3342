"""What `run.reconstruct` gives back: pixels, errors and skill of repairs, and themselves as a picture."""
# b damaged instances, C channels, H W pixels, K answers

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.discovery.skill import predict_part
from vision_mtl.inference.html import Markup, figure_image, photograph, to_pictures
from vision_mtl.inference.pictures import part_panel
from vision_mtl.inference.repairs import damage_images, measure_repairs
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Part
from vision_mtl.viz.reconstruction import Panel, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 10  # instances in the picture; all are in the tensors
PIXELS = ("original", "damaged", "repaired", "prediction", "classic", "error")


@dataclass(frozen=True)
class Reconstruction:
    """Pictures (b, C, H, W) float32 in [0, 1] on the CPU, an instance a row, `names` its image.

    `original`; `damaged` as a person should see it; `prediction`, the network's whole picture; `repaired`, the same
    with the visible pixels put back; `classic`, the repair without learning (inpainting, grey, bicubic); `error`
    (b, 1, H, W), the mean over channels of |repaired - original|.

    `skills` (b,) are 1 - squared error / that of the classic repair, NaN where that has none; `skill` is the same of
    all instances together: 0 is the classic repair, 1 a perfect one.

    A question (rotation, neighbour) repairs nothing: of it there are `original`, `damaged`, and in `skills` 1 - loss /
    chance loss; `said` and `true` (b,) are class numbers, `probabilities` (b, K), `class_names` what the numbers mean.
    Of `contrast`, which compares two views of each image with those of the others, there is the same without answers.
    """

    pretext: Pretext
    pretext_name: str
    names: list[str]
    original: Tensor
    damaged: Tensor
    skill: float
    skills: Tensor
    panel: Panel
    prediction: Tensor | None = None
    repaired: Tensor | None = None
    classic: Tensor | None = None
    error: Tensor | None = None
    said: Tensor | None = None
    true: Tensor | None = None
    probabilities: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.original)

    def pictures(self, which: str = "repaired") -> list[Image.Image]:
        """One of the pictures, of each instance, as PIL images; raises `UserError` for a name that there is not."""
        if which not in PIXELS:
            raise unknown("picture", which, PIXELS)
        found = getattr(self, which)
        if found is None:
            raise UserError(
                f"{self.pretext_name} repairs nothing and gives no {which}: see skills, said and probabilities."
            )
        return to_pictures(found.permute(0, 2, 3, 1).numpy())

    def figure(self) -> Figure:
        """From original to errors, an instance a column, ten at most."""
        return reconstruction_figure([self.panel])

    def __repr__(self) -> str:
        return f"Reconstruction({self.pretext_name}, {len(self)} instances, skill {self.skill:+.3f})"

    def _repr_html_(self) -> str:
        left_out = len(self) - MOST_COLUMNS
        more = f"<br/>the first {MOST_COLUMNS} of {len(self)} instances are shown" if left_out > 0 else ""
        return Markup(photograph(figure_image(self.figure()), repr(self)) + more)


def reconstruct(
    model: SharedModel, name: str, pretext: Pretext, images: Tensor, names: Sequence[str], seed: int, damage: int | None
) -> Reconstruction:
    """Damage images (B, C, H, W) by the pretext, repair them, and measure; `damage` fixes its number."""
    images = images.to(next(model.parameters()).device)
    part, seen = damage_images(name, pretext, images, seed=seed, number=damage)
    prediction = predict_part(model, part, seen)
    of = [names[row] for row in part.source_rows.tolist()]
    with torch.no_grad():
        if not pretext.repairs:
            return _answered(name, part, seen, prediction, of)
        found = measure_repairs(part, pretext.repair(prediction, seen, part.draw))
        skill, skills = _skills(found.error, found.classic_error)
        pixels = {key: getattr(found, key).cpu() for key in PIXELS if key != "error"}
        error = (found.repaired - found.original).abs().mean(1, keepdim=True).cpu()
        panel = _panel(name, part, seen, prediction, skill)
    return Reconstruction(pretext, name, of, skill=skill, skills=skills, panel=panel, error=error, **pixels)


def _answered(name: str, part: Part, seen: Tensor, prediction: Tensor, names: list[str]) -> Reconstruction:
    pretext, images, draw = part.pretext, part.images, part.draw
    losses = (pretext.loss(one, images, draw) for one in (prediction, torch.zeros_like(prediction)))
    skill, skills = _skills(*losses)
    answer = (
        {}
        if pretext.output == "embedding"
        else {
            "said": prediction.argmax(1).cpu(),
            "true": pretext.target(images, draw).cpu(),
            "probabilities": prediction.softmax(1).cpu(),
            "class_names": tuple(pretext.class_names or map(str, range(prediction.shape[1]))),
        }
    )
    panel = _panel(name, part, seen, prediction, skill)
    pictures = (images.cpu(), pretext.picture(images, draw).cpu())
    return Reconstruction(pretext, name, names, *pictures, skill, skills, panel, **answer)


def _skills(error: Tensor, reference: Tensor) -> tuple[float, Tensor]:
    """(b,) errors twice -> the skill of all, and of each; NaN where the reference makes no error."""
    error, reference = error.cpu(), reference.cpu()
    each = torch.where(reference > 0, 1 - error / reference, torch.nan)
    whole = 1 - error.sum() / reference.sum() if bool(reference.sum() > 0) else torch.nan
    return float(whole), each


def _panel(name: str, part: Part, seen: Tensor, prediction: Tensor, skill: float) -> Panel:
    """The panel of the first instances, so that a page stays small."""
    rows = slice(0, MOST_COLUMNS)
    what = "instance" if len(part.images) == 1 else "instances"
    title = f"{name}: skill {skill:+.2f} on {len(part.images)} {what}"
    return part_panel(title, part.select(rows), seen[rows], prediction[rows])
