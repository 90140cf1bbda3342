"""Give the pretexts that predict a teacher's features their targets, computed once for every image of the pool."""
# N images of the pool, M 1, or 2 with mirror images, D feature width, K whitened features

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.console import Console
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.feature_store import Features, features_in_memory, open_features
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import inference_batch_size, spread_evenly
from vision_mtl.evaluation.whitening import Whitening
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.teacher import Teacher, TeacherOrigin, published_teacher
from vision_mtl.pretext.contract import FeatureRequest, Pretext
from vision_mtl.recipes.run_warnings import images_seen
from vision_mtl.training.progress import DataProgress

FORMAT = 1  # raise when the meaning of the cached features changes
FITTED_ROWS = 20_000  # feature vectors of training images that the whitening is fitted to
LARGEST = 65_504.0  # of a 16-bit float


@dataclass(frozen=True)
class Bound:
    """Pretexts with their targets, what `result.json` says of the teacher, and the pretexts without a target."""

    pretexts: dict[str, Pretext]
    teacher: dict[str, Any] | None = None
    left_out: list[str] = field(default_factory=list)


def bind_teachers(
    config: RunConfig, run: Run, pool: Pool, pretexts: Mapping[str, Pretext], device: torch.device
) -> dict[str, Pretext]:
    """Return the pretexts, those that predict features with the features of the pool's images.

    The teacher becomes the entry `teacher` of the run's result. A pretext whose teacher has the same features of all
    training images is left out, with a warning. Raises `UserError` for a teacher that cannot be had or does not take
    the images.
    """
    about = repr((config.data.fit, pool.details.get("value_ranges", {})))
    root = Path(config.data.root).expanduser()
    found = bind_features(pretexts, pool, device, root=root, about=about, console=run.speaker)
    for name in found.left_out:
        run.warn(f"pretext {name} is left out: its teacher has the same features of all training images.")
    if found.teacher is not None:
        run.about["teacher"] = found.teacher
        name, trained_on = found.teacher["name"], found.teacher["trained_on"]
        run.warn(f"the teacher {name} was trained on: {trained_on}. Scores on such images are not independent of it.")
        _warn_of_seen_images(run, pool, name)
    return found.pretexts


def bind_features(
    pretexts: Mapping[str, Pretext],
    pool: Pool,
    device: torch.device,
    *,
    root: Path | None = None,
    about: str = "",
    console: Console | None = None,
) -> Bound:
    """Return the pretexts with their targets. Features are cached below `root`, or kept in memory alone.

    `about` describes how images became pixels, beyond their content. Raises `UserError` as `bind_teachers` does.
    """
    found, record, left_out = {}, None, []
    for name, pretext in pretexts.items():
        request = pretext.feature_request
        if request is None:
            found[name] = pretext
            continue
        teacher = open_teacher(request, pretext, pool.shape[0]).to(device)
        features, record = _targets(teacher, request, pool, root, about, console)
        if features is None:
            left_out.append(name)
        else:
            found[name] = pretext.bound(features)
    return Bound(found, record, left_out)


def teacher_runs(pretexts: Mapping[str, Pretext]) -> list[str]:
    """Return the runs and checkpoints among the teachers of the pretexts."""
    requests = (pretext.feature_request for pretext in pretexts.values())
    return [str(request.teacher) for request in requests if request is not None and _is_run(request.teacher)]


def _is_run(teacher: Any) -> bool:
    return isinstance(teacher, str) and Path(teacher).expanduser().exists()


def open_teacher(request: FeatureRequest, pretext: Pretext, channels: int) -> Teacher:
    """Return the teacher of a request for images of `channels` channels.

    Raises `UserError` for one that is unknown, or that takes other channels.
    """
    given = request.teacher
    if isinstance(given, nn.Module):
        origin = TeacherOrigin(getattr(pretext, "teacher", ""), "a Python module", "not stated")
        return Teacher(copy.deepcopy(given), request.kind, origin, (request.size, request.size))  # the user's trains on
    if str(given).startswith("module "):
        raise UserError(
            f"the teacher {given!r} was a Python module: give it again, by vm.Distil(...).taught_by(module) and "
            "vm.Trainer."
        )
    takes = 3
    if _is_run(given):
        teacher, takes = _run_as_teacher(given, request)
    else:
        teacher = published_teacher(given, request.size, request.kind)
    if channels not in ({1, takes} if takes == 3 else {takes}):
        raise UserError(f"the teacher {given} takes images of {takes} channels; these have {channels}.")
    return teacher


def _run_as_teacher(where: str, request: FeatureRequest) -> tuple[Teacher, int]:
    """Return the backbone of a run or checkpoint as a teacher, and its number of channels."""
    try:
        model, state = restore_model(where)
    except UserError as error:
        raise UserError(
            f"pretexts.distil.teacher must be a network's name, a run or its checkpoint: {error}"
        ) from error
    sources = [*(state["data"].get("unlabelled") or []), *(task["source"] for task in state["tasks"].values())]
    trained_on = ", ".join(dict.fromkeys(map(_public, sources))) or "unknown images"
    if weights := state.get("weights"):  # that its training began with
        trained_on += f"; from weights trained on: {weights['trained_on']}"
    if before := state.get("teacher"):
        trained_on += f"; towards features of {PurePath(before['name']).name}, trained on: {before['trained_on']}"
    origin = TeacherOrigin(where, f"run {PurePath(where).name}", trained_on)
    backbone = model.backbone
    return Teacher(backbone, request.kind, origin, (backbone.image_size[0], backbone.image_size[1])), backbone.in_chans


def _targets(
    teacher: Teacher, request: FeatureRequest, pool: Pool, root: Path | None, about: str, console: Console | None
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Return whitened features (N, M, K) or (N, M, K, h, w), None if all are equal; and the record of the teacher."""
    name, sha256 = teacher.origin.name, teacher.sha256()
    cached_below = root if len(pool.content) == len(pool) and not isinstance(request.teacher, nn.Module) else None
    one = teacher(pool.gather(torch.zeros(1, dtype=torch.int64)).to(_device_of(teacher)))
    shape = (len(pool), 2 if request.mirrored else 1, *one.shape[1:])
    key = _key(FORMAT, sha256, request.size, request.kind, shape, pool.shape, str(pool.dtype), about, pool.content)
    what = f"features by {PurePath(name).name}"
    if console is not None:
        place = f", cached below {root}" if cached_below else ""
        console.say(f"{what}: {len(pool):,} images{', each mirrored too' if request.mirrored else ''}{place}")
    with DataProgress(console) as progress:

        def compute(start: int, stop: int) -> np.ndarray:
            return _features(teacher, pool, torch.arange(start, stop), request.mirrored)

        raw = _open(cached_below, key, shape, compute, what, progress)
        training = pool.indices("train")
        whitening = _fit_whitening(raw.values, training, request.width)
        if whitening.rank == 0:
            return None, _record(teacher, sha256, raw)

        def whiten(start: int, stop: int) -> np.ndarray:
            values = torch.from_numpy(np.array(raw.values[start:stop]))
            return _to_half(whitening(values.flatten(0, 1)).unflatten(0, values.shape[:2]))

        key = _key(key, request.width, training.numpy())
        shape = (*shape[:2], request.width, *shape[3:])
        targets = _open(cached_below, key, shape, whiten, "whitened features", progress)
    return targets.values, _record(teacher, sha256, raw)


def _device_of(module: nn.Module) -> torch.device:
    """The device of a module's weights; the CPU for a module without any."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _public(source: str) -> str:
    """Return a source without its parent folders, which are private."""
    kind, _, rest = source.partition("/")
    return f"{kind}/{PurePath(rest).name}"


def _open(root: Path | None, key: str, shape: tuple[int, ...], fill: Any, what: str, progress: Any) -> Features:
    if root is not None:
        return open_features(root, key, shape, fill, what, progress)
    return features_in_memory(shape, fill, what, progress)


def _features(teacher: Teacher, pool: Pool, indices: Tensor, mirrored: bool) -> np.ndarray:
    """(n, M, D) or (n, M, D, h, w) float16 of the pool's images `indices` (n,)."""
    device, found = _device_of(teacher), []
    for batch in indices.split(inference_batch_size(device)):
        images = pool.gather(batch, device).to(device)
        views = [images, images.flip(3)] if mirrored else [images]
        found.append(_to_half(torch.stack([teacher(view) for view in views], 1)))
    return np.concatenate(found)


def _fit_whitening(values: np.ndarray, training: Tensor, width: int) -> Whitening:
    """Return the whitening of the training images' features, without those of mirror images."""
    positions = int(np.prod(values.shape[3:]))
    chosen = spread_evenly(training, max(FITTED_ROWS // positions, 1)).numpy()
    rows = torch.from_numpy(np.array(values[chosen, 0])).float()
    return Whitening.fit(rows.movedim(1, -1).flatten(0, -2), width)


def _to_half(values: Tensor) -> np.ndarray:
    return values.clamp(-LARGEST, LARGEST).half().cpu().numpy()


def _key(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else f"{part}\0".encode())
    return digest.hexdigest()


def _record(teacher: Teacher, sha256: str, raw: Features) -> dict[str, Any]:
    return {**vars(teacher.origin), "sha256": sha256, "seconds": round(raw.seconds, 3), "cached": raw.cached}


def _warn_of_seen_images(run: Run, pool: Pool, teacher: str) -> None:
    """Warn if the teacher is a run that was trained on test images of this one."""
    if not _is_run(teacher):
        return
    test = pool.content[pool.indices("test").numpy()]
    if known := int(np.isin(test, images_seen(teacher)).sum()):
        run.warn(
            f"{known} of {len(test)} test images were training images of the teacher {teacher}: the scores "
            "are not held out."
        )
