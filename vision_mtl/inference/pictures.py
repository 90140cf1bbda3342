"""Pictures of repairs: the damaged image, the model's repair, the classic repair, and the error of each."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.kinds import learned_text
from vision_mtl.discovery.skill import SCORE_SEED, predict
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.repairs import Repairs, measure_repairs
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.reconstruction import Panel, error_map, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_IMAGES = 8
Bands = Sequence[int] | None  # shown as red, green and blue, counted from 0; None: the default


def repair_figure(
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    split: str,
    scores: Mapping[str, Any] | None = None,
    *,
    num_images: int = NUM_IMAGES,
) -> Figure | None:
    """Return a figure with a panel for each pretext, on images of `split` that suit it; None if no image does.

    `scores` are those of `skill_learned` by pretext, for the titles.
    """
    panels = []
    for name in mixture.pretexts:
        indices = _chosen(pool, mixture, name, split, num_images)
        if len(indices):
            panels.append(repair_panel(model, pool, mixture, name, indices, (scores or {}).get(name)))
    return reconstruction_figure(panels) if panels else None


def repair_panel(
    model: SharedModel, pool: Pool, mixture: Mixture, name: str, indices: Tensor, score: Mapping[str, Any] | None = None
) -> Panel:
    """Return one pretext's panel for the pool's images `indices` (n,), one damaged instance of each."""
    device = next(model.parameters()).device
    images = pool.gather(indices).to(device)
    training = model.training
    model.eval()
    with torch.no_grad():
        part, damaged, prediction = predict(model, mixture, name, images, Keys(SCORE_SEED, 0, indices.to(device)))
        if part.pretext.output != "embedding":  # embeddings compare the instances of an image
            part, damaged, prediction = _first_instances(part, damaged, prediction)
        panel = part_panel(_title(name, score), part, damaged, prediction, pool.rgb_bands)
    model.train(training)
    return panel


def part_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor, bands: Bands = None) -> Panel:
    """Return the panel of a part: repairs, predicted classes, matched views, or how well features are predicted.

    `damaged` is (b, C, H, W), `prediction` (b, K, H, W) or (b, K); `bands` are shown as red, green and blue.
    """
    if part.pretext.repairs:
        return Panel(title, repair_rows(part, damaged, prediction, bands))
    panels = {"logits": _class_panel, "embedding": _views_panel, "features": _features_panel}
    return panels[part.pretext.output](title, part, damaged, prediction, bands)


def _first_instances(part: Part, damaged: Tensor, prediction: Tensor) -> tuple[Part, Tensor, Tensor]:
    """Return the first damaged instance of each image."""
    _, first = np.unique(part.source_rows.cpu().numpy(), return_index=True)
    rows = torch.from_numpy(first).to(damaged.device)
    return part.select(rows), damaged[rows], prediction[rows]


def repair_rows(part: Part, damaged: Tensor, prediction: Tensor, bands: Bands = None) -> list[tuple[str, np.ndarray]]:
    """Return labelled pictures (b, H, W, C) of a part, from the original to the errors."""
    pictures = repair_pictures(measure_repairs(part, part.pretext.repair(prediction, damaged, part.draw)), bands)
    labels = {
        "prediction": "prediction alone",
        "repaired": "repaired, visible\npixels put back" if "prediction" in pictures else "repaired",
        "classic": "classic repair",
        "classic_error": "error of the\nclassic repair",
    }
    return [(labels.get(key, key), picture) for key, picture in pictures.items()]


def repair_pictures(found: Repairs, bands: Bands = None) -> dict[str, np.ndarray]:
    """Return repairs as pictures (b, H, W, 1 or 3) in [0, 1], in the order in which they are shown.

    `original`, `damaged`, `prediction` (if some pixels are not scored), `repaired` (with those put back), `classic`,
    `error`, `classic_error` (of all bands). `bands` are shown as red, green and blue.
    """
    tensors = {"original": found.original, "damaged": found.damaged}
    if not bool(found.scored.all()):
        tensors["prediction"] = found.prediction
    tensors |= {"repaired": found.repaired, "classic": found.classic}
    every = {key: _pixels(value) for key, value in tensors.items()}
    errors = {"error": "repaired", "classic_error": "classic"}
    drawn = {key: shown_bands(value, bands) for key, value in every.items()}
    return drawn | {key: error_map(every[of], every["original"]) for key, of in errors.items()}


def _class_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor, bands: Bands) -> Panel:
    """Return the panel of a classification pretext: the pictures, with predicted and true classes below."""
    predicted = prediction.argmax(1).tolist()
    true = part.pretext.target(part.images, part.draw).tolist()
    names = part.pretext.class_names or [str(k) for k in range(prediction.shape[1])]
    captions = [names[a] if a == b else f"{names[a]}\nnot {names[b]}" for a, b in zip(predicted, true, strict=True)]
    shown = {"original": part.images, "shown": part.pretext.picture(part.images, part.draw)}
    return Panel(title, [(label, shown_bands(_pixels(i), bands)) for label, i in shown.items()], captions)


def _views_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor, bands: Bands) -> Panel:
    """Return the panel of an embedding pretext: two views of each image, and how many views of others are nearer."""
    of = part.source_rows
    count = int(of.max()) + 1
    own = of == torch.arange(count, device=damaged.device)[:, None]  # (images, views)
    first, second = own.int().argsort(dim=1, descending=True, stable=True)[:, :2].T
    unit = torch.nn.functional.normalize(prediction, dim=1)
    similar = (unit @ unit.T)[first]
    rank = ((similar > similar.gather(1, second[:, None])) & ~own).sum(1) + 1
    captions = ["found" if place == 1 else f"{place - 1} nearer" for place in rank.tolist()]
    rows = [("original", part.images[first]), ("one view", damaged[first]), ("another view", damaged[second])]
    return Panel(title, [(label, shown_bands(_pixels(images), bands)) for label, images in rows], captions)


def _features_panel(title: str, part: Part, damaged: Tensor, prediction: Tensor, bands: Bands) -> Panel:
    """Return the panel of predicted features: the pictures, with the skill on each below."""
    loss, chance = (
        part.pretext.loss(values, part.images, part.draw) for values in (prediction, torch.zeros_like(prediction))
    )
    captions = [f"skill {value:.2f}" for value in (1 - loss / chance).tolist()]
    shown = {"original": part.images, "shown": part.pretext.picture(part.images, part.draw)}
    return Panel(title, [(label, shown_bands(_pixels(i), bands)) for label, i in shown.items()], captions)


def _title(name: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return name
    interval = "" if score["low"] is None else f" ({score['low']:+.2f} to {score['high']:+.2f})"
    value = f"skill_learned {score['value']:+.2f}{interval}"
    return f"{name}: {learned_text(score)}, {value} on {score['n']:,} held-out images"


def _pixels(images: Tensor) -> np.ndarray:
    return images.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def _chosen(pool: Pool, mixture: Mixture, name: str, split: str, count: int) -> Tensor:
    """Return images that suit the pretext: half from the first source, the rest from the others in turn."""
    found: list[list[int]] = []
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
