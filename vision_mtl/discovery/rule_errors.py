"""Errors of the repairs that need no network: the classic repair, the zero answer, fitted rules. Kept on disk.

They depend on the images, the pretext and the sample only, so a study's seeds, resumed runs and `reconstruct` read them
from a file below `data.root`. Its name is a hash of everything that they are computed from, the code included.
"""
# n images, D damages, B images of a batch, C channels, H W pixels

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.data.store import RULE_FILES
from vision_mtl.discovery.folds import first_source
from vision_mtl.discovery.rules import FoldImages, Rule, fit_rules
from vision_mtl.discovery.skill import SCORE_SEED, squared_error
from vision_mtl.pretext.contract import PRETEXTS, Pretext, Shape
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

BATCH = 64  # images at a time: few, so that buffers are reused instead of returned to the system
CODE = ("core/rng.py", "core/shapes.py", "pretext/*.py", "discovery/rule_errors.py", "discovery/rules.py",
        "discovery/skill.py", "training/repair.py")  # fmt: skip
Column = dict[str, np.ndarray]  # errors by rule: (n,) of one damage, (n, D) of all; moments (n, C), (n, D, C)
Report = Callable[[str], None]  # receives a text about each damage before it is measured


def cached_rule_errors(
    mixture: Mixture,
    name: str,
    pool: Pool,
    indices: Tensor,
    training: FoldImages,
    device: torch.device,
    report: Report,
    cache: Path | None,
) -> Column:
    """Return `rule_errors`, from a file in the folder `cache` if they were computed before.

    Computed anew without a folder and for pretexts of plugins, whose code may change unnoticed.
    """
    pretext = mixture.pretexts[name]
    if cache is None or not PRETEXTS.is_packaged():
        return rule_errors(mixture, name, pool, indices, training, device, report)
    digest = rule_key(pretext, pool, indices, training, device)
    file = cache / f"{RULE_FILES}{type(pretext).registered_name}-{digest}.npz"
    with _locked(file, report):
        found = _read(file)
        if found is None:
            found = rule_errors(mixture, name, pool, indices, training, device, report)
            _write(file, found)
    return found


def rule_errors(
    mixture: Mixture,
    name: str,
    pool: Pool,
    indices: Tensor,
    training: FoldImages,
    device: torch.device,
    report: Report,
) -> Column:
    """Return the errors (n, D) of every rule on the images `indices` (n,), `untrained` and `classic` among them.

    `first` and `second` are the target's means and mean squares (n, D, C). Rules are fitted to the images `training`.
    """
    columns = []
    for number, damage in enumerate(damage_names(mixture.pretexts[name], pool.shape)):
        report(f"{name} {damage}, rules without learning")
        rules = _fit_rules(mixture, name, number, training)
        found: list[dict[str, Tensor]] = []
        for batch in indices.split(BATCH):
            part, damaged = one_damage(mixture, name, number, pool.gather(batch).to(device), batch)
            source = torch.from_numpy(first_source(pool, batch))[part.source_rows.cpu()]
            values = _errors(part, damaged, source, rules, training.images.device)
            found.append({key: mean_by_image(value, part, len(batch)) for key, value in values.items()})
        columns.append(concatenated(found))
    return stacked(columns)


def _errors(
    part: Part, damaged: Tensor, source: Tensor, rules: Mapping[str, Rule], device: torch.device
) -> dict[str, Tensor]:
    """(b,) errors of every rule on the instances of a part, and the moments (b, C); `rules` compute on `device`."""
    pretext, images, draw = part.pretext, part.images, part.draw
    scored = pretext.scored(images, draw)
    untrained = pretext.repair(zero_prediction(pretext, images), damaged, draw)
    inputs = [tensor.to(device) for tensor in (damaged, untrained, source)]
    fixed = pretext.rules(images, draw)
    repairs = {
        "untrained": untrained,
        "classic": fixed[pretext.classic] if pretext.classic in fixed else pretext.reference(images, draw),
        **{rule: repaired for rule, repaired in fixed.items() if rule != "classic"},
        **{rule: apply(*inputs).clamp(0, 1).to(images.device) for rule, apply in rules.items()},
    }
    values = {key: squared_error(repaired, images, scored) for key, repaired in repairs.items()}
    return values | dict(zip(("first", "second"), _moments(images, scored), strict=True))


def _fit_rules(mixture: Mixture, name: str, number: int, training: FoldImages) -> dict[str, Rule]:
    if len(training.images) == 0:
        return {}
    pretext, found = mixture.pretexts[name], []
    hides = False
    for rows in torch.arange(len(training.images)).split(BATCH):
        part, damaged = one_damage(mixture, name, number, training.images[rows], rows)
        untrained = pretext.repair(zero_prediction(pretext, part.images), damaged, part.draw)
        found.append((rows[part.source_rows.cpu()], damaged, untrained, pretext.scored(part.images, part.draw)))
        hides = part.mask is not None
    source_rows, damaged, untrained, scored = (torch.cat(values) for values in zip(*found, strict=True))
    if len(source_rows) > len(training.images):  # several instances of an image
        training = training.select(source_rows)
    return fit_rules(training, damaged, untrained, scored, hides)


def rule_key(pretext: Pretext, pool: Pool, indices: Tensor, training: FoldImages, device: torch.device) -> str:
    """Return a hash of what `rule_errors` depends on: pixels, options, sample, code, libraries and threads."""
    digest = hashlib.blake2b(digest_size=12)
    machine = (torch.__version__, cv2.__version__, np.__version__, device.type, torch.get_num_threads())
    digest.update(repr((machine, replace(pretext, weight=1.0), pool.shape, str(pool.dtype))).encode())
    package = Path(__file__).parents[1]
    for file in sorted(path for pattern in CODE for path in package.glob(pattern)):
        digest.update(file.read_bytes())
    for batch in indices.split(BATCH):
        digest.update(np.ascontiguousarray(pool.pixels(batch)).tobytes())
    for values in (indices, first_source(pool, indices), *(vars(training).values())):
        digest.update(np.ascontiguousarray(values.cpu() if isinstance(values, Tensor) else values).tobytes())
    return digest.hexdigest()


def _locked(file: Path, report: Report) -> AbstractContextManager[object]:
    """Return the acquired lock of a file, for a `with` block: a second process waits and reads what the first found."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        report("waiting for another process that scores the same images")
        return lock.acquire()


def _read(file: Path) -> Column | None:
    """Return the errors in a file; None if it is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(file) as found:
        return {key: found[key] for key in found.files}
    return None


def _write(file: Path, errors: Column) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **errors)  # type: ignore[arg-type]  # numpy's hints take the names for other options
    with suppress(UserError):  # a full disk: the next run computes them again
        atomic_write_bytes(file, buffer.getvalue())


def damage_names(pretext: Pretext, shape: Shape) -> list[str]:
    """Names of the separately scored damages; `all` alone for a pretext without a repair or with unlisted damages."""
    return pretext.damages(shape) if pretext.repairs and pretext.lists_damages else ["all"]


def scored_shares(pretext: Pretext, shape: Shape) -> np.ndarray:
    """(D,) of sum 1: the probability of each of `damage_names`."""
    names = damage_names(pretext, shape)
    return np.ones(1) if names == ["all"] else pretext.damage_shares(shape).double().numpy()


def usable_indices(pool: Pool, pretext: Pretext, indices: Tensor) -> Tensor:
    """Those of the pool's images `indices` (n,) that suit the pretext."""
    if len(indices) == 0:  # some pretexts cannot examine an empty batch
        return indices
    return indices[torch.cat([pretext.usable(pool.gather(batch)) for batch in indices.split(BATCH)])]


def one_damage(mixture: Mixture, name: str, number: int, images: Tensor, indices: Tensor) -> tuple[Part, Tensor]:
    """Apply damage `number` of pretext `name` to images (B, C, H, W); return the part and the damaged images.

    Where the pretext's damages cannot be listed, each image gets a drawn one.
    """
    which = torch.full((len(images),), number, device=images.device)
    pretext = mixture.pretexts[name]
    # a fixed single view has no other to be compared with, and a fixed draw would hold one image's features
    drawn = pretext.output in ("embedding", "features") or (pretext.repairs and not pretext.lists_damages)
    return mixture.prepare_all(name, images, Keys(SCORE_SEED, 0, indices.to(images.device)), None if drawn else which)


def mean_by_image(values: Tensor, part: Part, count: int) -> Tensor:
    """(b, ...) values of a part's instances -> (count, ...) means over the instances of each image."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add(0, part.source_rows, values)
    instances = part.source_rows.bincount(minlength=count).clamp(min=1)
    return sums / instances.view(-1, *[1] * (values.ndim - 1))


def _moments(images: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) mean and (B, C) mean square of the scored pixels."""
    count = scored.sum((2, 3)).clamp(min=1)
    kept = torch.where(scored, images, 0.0)
    return kept.sum((2, 3)) / count, kept.square().sum((2, 3)) / count


def concatenated(found: Sequence[Mapping[str, Tensor]]) -> Column:
    """Join the batches of one damage."""
    return {key: torch.cat([part[key] for part in found]).double().cpu().numpy() for key in found[0]}


def stacked(columns: Sequence[Column]) -> Column:
    """Join the damages: (n, ...) of each become (n, D, ...). A rule that some damage lacks is left out."""
    kept = [key for key in columns[0] if all(key in column for column in columns)]
    return {key: np.stack([column[key] for column in columns], 1) for key in kept}
