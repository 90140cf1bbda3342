"""Pixels, errors and skill of repairs, the result of `run.reconstruct`, shown as a figure in notebooks."""
# b damaged instances, C channels, H W pixels, K classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.reconstruction import Panel, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLUMNS = 8  # instances in the figure; the tensors have all
PIXELS = ("original", "damaged", "repaired", "prediction", "classic", "error")


@dataclass(frozen=True)
class Reconstruction:
    """Pictures (b, C, H, W) float32 in [0, 1] on the CPU of b damaged instances; `names` are their images.

    `original`; `damaged`, with hidden pixels hatched; `prediction`, the network's complete picture; `repaired`, the
    same with the visible pixels put back; `classic`, the repair without learning (inpainting, grey, bicubic); `error`
    (b, 1, H, W), the mean over channels of |repaired - original|.

    `skills` (b,) are 1 - squared error / squared error of the classic repair, NaN where the latter is 0; `skill` is
    the same for the sums over all instances: 0 for the classic repair, 1 for a perfect one.

    A classification pretext (rotation, neighbour) repairs nothing: it has `original`, `damaged`, and in `skills`
    1 - loss / chance loss; `predicted` and `true` (b,) are class numbers, `probabilities` (b, K), `class_names` the
    names of the classes. `contrast`, which compares views of images, has the same without classes.
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
    predicted: Tensor | None = None
    true: Tensor | None = None
    probabilities: Tensor | None = None
    class_names: tuple[str, ...] = ()
    rgb_bands: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.original)

    def pictures(self, which: str = "repaired") -> list[Image.Image]:
        """Return one kind of picture as PIL images; raises `UserError` for one that the pretext does not have."""
        if which not in PIXELS:
            raise unknown("picture", which, PIXELS)
        found = getattr(self, which)
        if found is None:
            raise UserError(
                f"{self.pretext_name} repairs nothing and has no {which}: see skills, predicted and probabilities."
            )
        bands = None if which == "error" else self.rgb_bands
        return to_pictures(shown_bands(found.permute(0, 2, 3, 1).numpy(), bands))

    def figure(self) -> Figure:
        """Return the pictures from original to errors, one instance per column, eight at most."""
        return reconstruction_figure([self.panel])

    def __repr__(self) -> str:
        return f"Reconstruction({self.pretext_name}, {len(self)} instances, skill {self.skill:+.3f})"

    def _repr_html_(self) -> str:
        left_out = len(self) - MAX_COLUMNS
        more = f"<br/>the first {MAX_COLUMNS} of {len(self)} instances are shown" if left_out > 0 else ""
        return Markup(photograph(figure_image(self.figure()), repr(self)) + more)


def reconstruct(
    model: SharedModel,
    name: str,
    pretext: Pretext,
    images: Tensor,
    names: Sequence[str],
    seed: int,
    damage: int | None,
    bands: Sequence[int] | None = None,
) -> Reconstruction:
    """Damage images (B, C, H, W) by the pretext, repair and score them; `damage` fixes the number of the damage.

    `bands` are shown as red, green and blue.
    """
    images = images.to(next(model.parameters()).device)
    part, seen = damage_images(name, pretext, images, seed=seed, number=damage)
    prediction = predict_part(model, part, seen)
    instance_names = [names[row] for row in part.source_rows.tolist()]
    with torch.no_grad():
        make = _repaired if pretext.repairs else _compared
        return make(name, part, seen, prediction, instance_names, bands)


def _repaired(
    name: str, part: Part, seen: Tensor, prediction: Tensor, names: list[str], bands: Sequence[int] | None
) -> Reconstruction:
    """Return the result of a pretext that repairs pixels."""
    found = measure_repairs(part, part.pretext.repair(prediction, seen, part.draw))
    skill, skills = _skills(found.error, found.classic_error)
    return Reconstruction(
        part.pretext,
        name,
        names,
        original=found.original.cpu(),
        damaged=found.damaged.cpu(),
        skill=skill,
        skills=skills,
        panel=_panel(name, part, seen, prediction, skill, bands),
        prediction=found.prediction.cpu(),
        repaired=found.repaired.cpu(),
        classic=found.classic.cpu(),
        error=(found.repaired - found.original).abs().mean(1, keepdim=True).cpu(),
        rgb_bands=bands,
    )


def _compared(
    name: str, part: Part, seen: Tensor, prediction: Tensor, names: list[str], bands: Sequence[int] | None
) -> Reconstruction:
    """Return the result of a pretext whose loss is compared with its chance loss: it predicts classes or embeddings."""
    pretext, images, draw = part.pretext, part.images, part.draw
    losses = (pretext.loss(outputs, images, draw) for outputs in (prediction, torch.zeros_like(prediction)))
    skill, skills = _skills(*losses)
    panel = _panel(name, part, seen, prediction, skill, bands)
    pictures = (images.cpu(), pretext.picture(images, draw).cpu())
    found = Reconstruction(pretext, name, names, *pictures, skill, skills, panel, rgb_bands=bands)
    if pretext.output == "embedding":
        return found
    return replace(
        found,
        predicted=prediction.argmax(1).cpu(),
        true=pretext.target(images, draw).cpu(),
        probabilities=prediction.softmax(1).cpu(),
        class_names=tuple(pretext.class_names or map(str, range(prediction.shape[1]))),
    )


def _skills(error: Tensor, reference: Tensor) -> tuple[float, Tensor]:
    """Return the skill of all instances together and of each, from errors (b,); NaN where the reference error is 0."""
    error, reference = error.cpu(), reference.cpu()
    each = torch.where(reference > 0, 1 - error / reference, torch.nan)
    total = 1 - error.sum() / reference.sum() if bool(reference.sum() > 0) else torch.nan
    return float(total), each


def _panel(name: str, part: Part, seen: Tensor, prediction: Tensor, skill: float, bands: Sequence[int] | None) -> Panel:
    """Return the panel of the first instances, to keep the figure small.

    A skill against the classic repair alone does not show learning, so repairs have none in their title.
    """
    rows = slice(0, MAX_COLUMNS)
    title = name if part.pretext.repairs else f"{name}: skill {skill:+.2f} against chance"
    return part_panel(title, part.select(rows), seen[rows], prediction[rows], bands)
