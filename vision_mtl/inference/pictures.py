"""Pictures of repairs: the original, the damaged image, the model's repair, the classic repair, and the error."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.kinds import learned_text
from vision_mtl.discovery.skill import SCORE_SEED, predict, squared_error
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.repairs import Repairs, measure_repairs
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.reconstruction import ERROR, Panel, error_map, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_IMAGES = 8
CANDIDATES = 24  # images of each source that the columns are chosen from
TELLING = 0.75  # place of a chosen image among the candidates, from the easiest to the hardest
NOUNS = {"train": "training images", "val": "validation images", "test": "test images"}  # by split
NAMES = {
    "grid_mask": "hidden pixels",
    "decolorise": "lost colour",
    "downsample": "lost resolution",
    "contrast": "views",
}  # of what pretexts repair, in titles and sentences
ROWS = {  # kind of picture -> label
    "original": "original",
    "damaged": "damaged",
    "repaired": "repaired",
    "classic": "classic repair",
    "error": ERROR,
}
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
    """Return a figure with a panel for each pretext, on telling images of `split`; None if no image suits any.

    Views that are compared are only drawn if nothing else is. `scores` are those of `skill_learned` by pretext, for the
    titles.
    """
    panels = []
    shown = {name: own for name, own in mixture.pretexts.items() if own.output != "embedding"} or mixture.pretexts
    for name, pretext in shown.items():
        indices = telling_images(pool, mixture, name, split, num_images)
        if len(indices):
            panel = repair_panel(model, pool, mixture, name, indices)
            title, note = _head(name, (scores or {}).get(name), NOUNS[split], pretext.repairs)
            panels.append(replace(panel, title=title, note=note))
    return reconstruction_figure(panels) if panels else None


def repair_panel(model: SharedModel, pool: Pool, mixture: Mixture, name: str, indices: Tensor) -> Panel:
    """Return one pretext's panel for the pool's images `indices` (n,), one damaged instance of each."""
    device = next(model.parameters()).device
    images = pool.gather(indices).to(device)
    training = model.training
    model.eval()
    with torch.no_grad():
        part, damaged, prediction = predict(model, mixture, name, images, Keys(SCORE_SEED, 0, indices.to(device)))
        if part.pretext.output != "embedding":  # embeddings compare the instances of an image
            rows = _first_instances(part)
            part, damaged, prediction = part.select(rows), damaged[rows], prediction[rows]
        panel = part_panel(name, part, damaged, prediction, pool.rgb_bands)
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


def _first_instances(part: Part) -> Tensor:
    """Return the row (B,) of the first damaged instance of each image."""
    _, first = np.unique(part.source_rows.cpu().numpy(), return_index=True)
    return torch.from_numpy(first).to(part.source_rows.device)


def repair_rows(part: Part, damaged: Tensor, prediction: Tensor, bands: Bands = None) -> list[tuple[str, np.ndarray]]:
    """Return five labelled pictures (b, H, W, C) of a part, from the original to the repair's error."""
    pictures = repair_pictures(measure_repairs(part, part.pretext.repair(prediction, damaged, part.draw)), bands)
    return [(label, pictures[key]) for key, label in ROWS.items()]


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


def _head(name: str, score: Mapping[str, Any] | None, images: str, repairs: bool) -> tuple[str, str]:
    """Return a panel's title, with the verdict, and a note that explains the score."""
    title = f"{NAMES[name].capitalize()} ({name})" if name in NAMES else name
    if score is None:
        return title, ""
    value = score["value"]
    interval = "" if score["low"] is None else f", 95 % interval {score['low']:+.2f} to {score['high']:+.2f}"
    more, loss = "less" if value >= 0 else "more", "squared error" if repairs else "loss"
    words = f"{100 * abs(value):.0f} % {more} {loss} than the best rule without training"
    note = f"{words} (skill_learned {value:+.2f}{interval}, on {score['n']:,} {images})"
    return f"{title}: {learned_text(score)}", note


def _pixels(images: Tensor) -> np.ndarray:
    return images.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def telling_images(pool: Pool, mixture: Mixture, name: str, split: str, count: int) -> Tensor:
    """Return at most `count` images (n,) of `split` that show what the pretext asks for.

    Sources without labels (photographs) are first, then the others with an image each; sources without labels fill the
    columns that are left, or, if there is none, all in turn. The choice is deterministic and made without the network:
    by the classic repair's error under the damage that the picture shows, so blank cells and grey photographs are left
    out.
    """
    labelled = np.zeros(len(pool), bool)
    for target in pool.targets.values():
        labelled |= target.labelled
    has_labels = [bool(labelled[member].any()) for member in pool.member.T]
    order = [source for _, source in sorted(zip(has_labels, pool.sources, strict=True), key=lambda pair: pair[0])]
    ranked = {source: _ranked(pool, mixture, name, pool.indices(split, source=source)) for source in order}
    favoured = order[: has_labels.count(False)] or order
    chosen: dict[str, list[int]] = {source: [] for source in order}
    for source in [*order, *favoured * count, *order * count]:
        known = [image for images in chosen.values() for image in images]
        left = [image for image in ranked[source] if image not in known]
        if left and len(known) < count:
            chosen[source].append(left[0])
    return torch.tensor([image for images in chosen.values() for image in images], dtype=torch.int64)


def _ranked(pool: Pool, mixture: Mixture, name: str, indices: Tensor) -> list[int]:
    """Return some of the images `indices`, the most telling first: one of each photograph or person before the next."""
    candidates = spread_evenly(indices, CANDIDATES)
    if len(candidates) == 0:
        return []
    images = pool.gather(candidates)
    usable = mixture.pretexts[name].usable(images)
    candidates, images = candidates[usable], images[usable]
    if len(candidates) == 0:
        return []
    difficulty = _difficulty(mixture, name, images, candidates)
    found = candidates[difficulty.argsort(stable=True)].tolist()
    found = found[int((difficulty == 0).sum()) :] or found  # without those that have nothing to repair
    middle = TELLING * (len(found) - 1)
    found = [found[place] for place in sorted(range(len(found)), key=lambda place: abs(place - middle))]
    clusters = pool.cluster[found].tolist()
    turn = [clusters[:place].count(cluster) for place, cluster in enumerate(clusters)]
    return [image for _, image in sorted(zip(turn, found, strict=True), key=lambda pair: pair[0])]


def _difficulty(mixture: Mixture, name: str, images: Tensor, indices: Tensor) -> Tensor:
    """Return the classic repair's error (n,) of each image's shown damage; of other pretexts the contrast of pixels."""
    if not mixture.pretexts[name].repairs:
        return images.flatten(1).std(1)
    part, _ = mixture.prepare_all(name, images, Keys(SCORE_SEED, 0, indices))
    part = part.select(_first_instances(part))
    reference, scored = (of(part.images, part.draw) for of in (part.pretext.reference, part.pretext.scored))
    return squared_error(reference, part.images, scored)
