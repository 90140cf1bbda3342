"""Repairs as pictures: what the model saw, what it answered, what the classic repair gives, where each is wrong."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.skill import SCORE_SEED, predict
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.repairs import Repairs, measure_repairs
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.viz.reconstruction import Panel, error_map, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_IMAGES = 8


def repair_figure(
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    split: str,
    scores: Mapping[str, Any] | None = None,
    *,
    num_images: int = NUM_IMAGES,
) -> Figure | None:
    """A panel for each pretext, on images of `split` that suit it; None if there is none. `scores` go into titles."""
    panels = []
    for name in mixture.pretexts:
        indices = _chosen(pool, mixture, name, split, num_images)
        if len(indices):
            panels.append(repair_panel(model, pool, mixture, name, indices, (scores or {}).get(name)))
    return reconstruction_figure(panels) if panels else None


def repair_panel(
    model: SharedModel, pool: Pool, mixture: Mixture, name: str, indices: Tensor, score: Mapping[str, Any] | None = None
) -> Panel:
    """One pretext's rows for the pool's images `indices` (n,), one damaged instance each."""
    device = next(model.parameters()).device
    images = pool.gather(indices).to(device)
    training = model.training
    model.eval()
    with torch.no_grad():
        part, damaged, prediction = predict(model, mixture, name, images, Keys(SCORE_SEED, 0, indices.to(device)))
        if part.pretext.output != "embedding":  # which compares an image's instances
            part, damaged, prediction = _first_instances(part, damaged, prediction)
        panel = part_panel(_title(name, score), part, damaged, prediction)
    model.train(training)
    return panel


def part_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor) -> Panel:
    """A part, its `damaged` images (b, C, H, W) and a model's predictions, (b, K, H, W) or (b, K), as a panel:
    pictures of repairs, a question's answers, or which views were taken for which."""
    if part.pretext.repairs:
        return Panel(title, repair_rows(part, damaged, prediction))
    panel = _answer_panel if part.pretext.output == "logits" else _views_panel
    return panel(title, part, damaged, prediction)


def _first_instances(part: Part, damaged: Tensor, prediction: Tensor) -> tuple[Part, Tensor, Tensor]:
    """Where an image gives several damaged instances, its first."""
    _, first = np.unique(part.source_rows.cpu().numpy(), return_index=True)
    rows = torch.from_numpy(first).to(damaged.device)
    return part.select(rows), damaged[rows], prediction[rows]


def repair_rows(part: Part, damaged: Tensor, prediction: Tensor) -> list[tuple[str, np.ndarray]]:
    """(label, pictures (b, H, W, C)) of a part, from the original to the errors."""
    pictures = repair_pictures(measure_repairs(part, part.pretext.repair(prediction, damaged, part.draw)))
    labels = {
        "prediction": "prediction alone",
        "repaired": "repaired, visible\npixels put back" if "prediction" in pictures else "repaired",
        "classic": "classic repair",
        "classic_error": "error of the\nclassic repair",
    }
    return [(labels.get(key, key), picture) for key, picture in pictures.items()]


def repair_pictures(found: Repairs) -> dict[str, np.ndarray]:
    """Repairs as pictures (b, H, W, C) in [0, 1], in the order in which they are shown.

    `original`, `damaged`, `prediction` (where some pixels are not scored), `repaired` (with those put back), `classic`,
    `error`, `classic_error`.
    """
    tensors = {"original": found.original, "damaged": found.damaged}
    if not bool(found.scored.all()):
        tensors["prediction"] = found.prediction
    tensors |= {"repaired": found.repaired, "classic": found.classic}
    drawn = {key: _pixels(value) for key, value in tensors.items()}
    errors = {"error": "repaired", "classic_error": "classic"}
    return drawn | {key: error_map(drawn[of], drawn["original"]) for key, of in errors.items()}


def _answer_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor) -> Panel:
    """A question's panel: the picture shown, and under it what the model said and what was true."""
    said = prediction.argmax(1).tolist()
    true = part.pretext.target(part.images, part.draw).tolist()
    names = part.pretext.class_names or [str(k) for k in range(prediction.shape[1])]
    captions = [names[a] if a == b else f"{names[a]}\nnot {names[b]}" for a, b in zip(said, true, strict=True)]
    shown = [("original", _pixels(part.images)), ("shown", _pixels(part.pretext.picture(part.images, part.draw)))]
    return Panel(title, shown, captions)


def _views_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor) -> Panel:
    """An embedding's panel: two views of each image, and how many views of others are nearer to one than the other."""
    of = part.source_rows
    count = int(of.max()) + 1
    own = of == torch.arange(count, device=damaged.device)[:, None]  # (images, views)
    first, second = own.int().argsort(dim=1, descending=True, stable=True)[:, :2].T
    unit = torch.nn.functional.normalize(prediction, dim=1)
    similar = (unit @ unit.T)[first]
    rank = ((similar > similar.gather(1, second[:, None])) & ~own).sum(1) + 1
    captions = ["found" if place == 1 else f"{place - 1} nearer" for place in rank.tolist()]
    rows = [("original", part.images[first]), ("one view", damaged[first]), ("another view", damaged[second])]
    return Panel(title, [(label, _pixels(images)) for label, images in rows], captions)


def _title(name: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return name
    interval = "" if score["low"] is None else f" ({score['low']:+.2f} to {score['high']:+.2f})"
    return f"{name}: skill {score['value']:+.2f}{interval} on {score['n']:,} held-out instances"


def _pixels(images: Tensor) -> np.ndarray:
    return images.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def _chosen(pool: Pool, mixture: Mixture, name: str, split: str, count: int) -> Tensor:
    """Images that suit the pretext: half from the first source, the rest from the others in turn."""
    found: list[Sequence[int]] = []
    for source in pool.sources:
        indices = spread_evenly(pool.indices(split, source=source), 8 * count)
        if len(indices):
            usable = mixture.pretexts[name].usable(pool.gather(indices))
            found.append(spread_evenly(indices[usable], count).tolist())
    found = [indices for indices in found if indices]
    if not found:
        return torch.zeros(0, dtype=torch.int64)
    share = count if len(found) == 1 else count - min(count // 2, len(found) - 1)
    chosen = spread_evenly(torch.tensor(found[0]), share).tolist()
    rest = [i for group in zip(*[f + [-1] * (count - len(f)) for f in found[1:]], strict=True) for i in group if i >= 0]
    chosen += [i for i in rest if i not in chosen][: count - len(chosen)]
    return torch.tensor(chosen)
