"""The parts of pretraining, to compose in a program of one's own: images, a model, the loop, or the loss alone."""
# B images, C channels, H W pixels, D feature width

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vision_mtl.cli.execute import check_folder
from vision_mtl.config.run_config import REPAIRS, RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.console import Console
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.run import Run
from vision_mtl.core.shapes import parse_image_size
from vision_mtl.data.batches import Batches
from vision_mtl.data.depth import LEVELS
from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.inference.image_files import frame_of
from vision_mtl.inference.image_inputs import read_image_input
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, DecoderOptions, MapSpec
from vision_mtl.models.options import BackboneOptions
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes.band_statistics import fit_statistics
from vision_mtl.recipes.build import describe_model
from vision_mtl.recipes.fit import fit, write_result
from vision_mtl.recipes.repair import measure_objective, resume_repair
from vision_mtl.recipes.teacher import bind_features
from vision_mtl.training.loop import Hook
from vision_mtl.training.loop import Trainer as Loop
from vision_mtl.training.objective import step_loss
from vision_mtl.training.options import Optim, Runtime, Track
from vision_mtl.training.repair import PretextObjective, RepairFeed, head_specs, measure_chance_losses
from vision_mtl.training.step_record import Progress, StepRecord

Size = int | str | Sequence[int]  # pixels: N, "H,W" or (H, W)


class RepairModel(SharedModel):
    """A shared model that knows the pretexts of its heads, so that `repair_loss` can damage images for it."""

    def __init__(self, backbone: Backbone, decoder_options: DecoderOptions, pretexts: Mapping[str, Pretext]) -> None:
        maps = MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size)
        super().__init__(backbone, decoder_options.build(maps), head_specs(pretexts, backbone.in_chans))
        self.decoder_options, self.pretexts = decoder_options, dict(pretexts)
        self.chance_losses: dict[str, float] = {}  # measured on the first images
        self.num_unnumbered_calls = 0  # of `repair_loss`, each of which counts as a step


def open_images(
    images: str | PathLike[str] | Sequence[str] | Dataset[Any] | Tensor | np.ndarray,
    size: Size = 64,
    *,
    channels: int = 3,
    root: str | PathLike[str] = "data",
    image: str | None = None,
    value_range: Literal["full"] | list[float | str] | None = None,
    skip_unreadable: bool = False,
) -> Pool:
    """Return images as a pool of `size`, ready to train on.

    `images` is one source or several (`"images/PATH"`, `"folder/PATH"`, `"bundled/photos"`, ...): 20 % of its images
    are held out for testing and 10 % for validation, as in every run, and all are decoded once into a store below
    `root`; `image` names the image column of sources with several. Or it is a torch `Dataset` (items are images, or
    tuples that begin with one: PIL, uint8 arrays), a float tensor (B, C, H, W) in [0, 1] of that size, or an array
    (B, H, W, C). These are read into memory, stretched to `size`, and all used for training. `value_range` are the
    values of deep images that become 0 and 1, as in `data.value_range`; arrays other than uint8 need two numbers.
    `skip_unreadable` leaves out the files of a source that cannot be decoded. What a run would warn of (skipped files,
    copies, ...) is a Python warning here. Raises `UserError` for anything else.
    """
    height, width = parse_image_size(size if isinstance(size, int | str) else list(size))
    if isinstance(images, str | PathLike) or (isinstance(images, list | tuple) and _all_text(images)):
        sources = [fspath(one) for one in ([images] if isinstance(images, str | PathLike) else images)]
        data = Data(
            unlabelled=sources,
            root=fspath(root),
            image=image,
            value_range=value_range,
            skip_unreadable=skip_unreadable,
        )
        pool = build_pool(data, {}, image_size=(height, width), channels=channels)
        for text in pool.warnings:
            warnings.warn(text, stacklevel=2)
        return pool
    items = [_image_of(item) for item in _items(images)] if not isinstance(images, Tensor | np.ndarray) else images
    frame = frame_of({"data": {"fit": "stretch"}}, "open_images", (height, width), channels, value_range)
    _, pixels = read_image_input(items, replace(frame, no_range="Give value_range=(low, high)."))
    levels = 255 if frame.value_range is None else LEVELS
    kind = np.uint8 if frame.value_range is None else np.uint16
    return _pool_in_memory((pixels * levels).round().permute(0, 2, 3, 1).contiguous().numpy().astype(kind))


def build_model(
    backbone: str = BackboneOptions.name,
    size: Size = 64,
    pretexts: Sequence[Pretext | str] | Mapping[str, Pretext] = tuple(REPAIRS),
    *,
    channels: int = 3,
    decoder: DecoderOptions | str = "stages",
    pretrained: bool | str | PathLike[str] = False,
    input_size: int = 0,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> RepairModel:
    """Return a freshly initialised model: a timm backbone, a decoder, and a head for each pretext.

    `pretexts` are instances (`vm.GridMask(grid=2)`) or names; `kwargs` are passed to `timm.create_model`. The weights
    follow `seed`; `pretrained` and `input_size` are as in section `backbone`, for a backbone with published weights.
    Raises `UserError` for an unknown name, and for sizes and channels that do not go together.
    """
    image_size = parse_image_size(size if isinstance(size, int | str) else list(size))
    named = _named(pretexts)
    for pretext in named.values():
        pretext.check((channels, *image_size))
    options = BackboneOptions(
        name=backbone,
        pretrained=pretrained if isinstance(pretrained, bool) else fspath(pretrained),
        in_chans=channels,
        input_size=input_size,
        kwargs=dict(kwargs or {}),
    )
    torch.manual_seed(seed)
    chosen = DECODERS.get(decoder)() if isinstance(decoder, str) else decoder
    made = Backbone.of(options, image_size)
    for text in made.load_warnings:
        warnings.warn(text, stacklevel=2)
    return RepairModel(made, chosen, named)


def repair_loss(model: RepairModel, images: Tensor, *, step: int | None = None, seed: int = 0) -> Tensor:
    """Return the loss of repairing damaged copies of `images`: a scalar with a graph, to call `backward()` on.

    `images` (B, C, H, W) are float32 in [0, 1], of the model's size and on its device. Each is damaged by one of the
    model's pretexts. The loss is the mean over images, in units of each pretext's chance loss, so an untrained model is
    near 1; the first call measures those chance losses on its images and keeps them in the model. Each call draws new
    damage; the same `step` and `seed` draw the same for the image at the same place of the batch. Raises `UserError`
    for images of another shape, and if no pretext suits them.
    """
    shape = (model.backbone.in_chans, *model.backbone.image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not images.is_floating_point():
        raise UserError(f"images must be float (B, {', '.join(map(str, shape))}); found {tuple(images.shape)}.")
    if step is None:
        step, model.num_unnumbered_calls = model.num_unnumbered_calls, model.num_unnumbered_calls + 1
    index = torch.arange(len(images))
    keys = Keys(seed, step, index)
    if not model.chance_losses:
        model.chance_losses = measure_chance_losses(Mixture(model.pretexts), images.detach(), Keys(seed, 0, index))
    usable = {name: pretext for name, pretext in model.pretexts.items() if name in model.chance_losses}
    if not usable:
        raise UserError(f"no pretext of the model suits these images: {', '.join(model.pretexts)}.")
    return step_loss(model, PretextObjective(Mixture(usable), model.chance_losses), (images, keys)).total


class Trainer:
    """The command line's own training loop, for a model of `build_model` and a pool of `open_images`.

    Training ends at `steps` or after `max_seconds`, whichever comes first. `options` are those of section `optim`
    (`weight_decay=0.1`, ...). With `run_dir`, checkpoints, `metrics.jsonl` and `result.json` are written there, a
    second call resumes, and `vm.load_run` and `init_from` take the folder; without it no file is written. As on the
    command line, more `steps` extend a run, and any other option that differs from the folder's is refused. Raises
    `UserError` for that, and for options out of range.
    """

    def __init__(
        self,
        model: RepairModel,
        pool: Pool,
        *,
        steps: int | None = None,
        max_seconds: float | None = None,
        batch_size: int = 64,
        learning_rate: float = Optim.learning_rate,
        seed: int = 0,
        device: str = "auto",
        run_dir: str | PathLike[str] | None = None,
        runtime: Runtime | None = None,
        track: Track | None = None,
        console: str = "auto",
        **options: Any,
    ) -> None:
        optim = Optim(
            steps=steps, max_seconds=max_seconds, batch_size=batch_size, learning_rate=learning_rate, **options
        )
        self.runtime = runtime or Runtime()
        self.model, self.pool, self.seed, self.device = model, pool, seed, device
        self.track, self.console = track or Track(), Console.of(console)
        self.run_dir = None if run_dir is None else Path(run_dir).expanduser()
        self.records: list[StepRecord] = []  # one for each step of this process
        accelerator = self.runtime.accelerator(device)
        self.indices = pool.indices("train")
        if len(self.indices) == 0:
            raise UserError("there is no image to train on: the pool has no training image.")
        fit_statistics(model.backbone, pool, self.indices)
        batches = Batches(self.indices, optim.batch_size, seed)
        feed = RepairFeed(pool, batches, seed, accelerator.device)
        layout = self.runtime.layout(model.backbone)
        bound = bind_features(model.pretexts, pool, accelerator.device, console=self.console)
        if bound.left_out:
            raise UserError(
                f"pretext {bound.left_out[0]} has nothing to learn: its teacher has the same features of all images."
            )
        self.pretexts, self.teacher = bound.pretexts, bound.teacher
        self.loop = Loop(
            model, self._objective(), feed, optim, accelerator, layout, seed, compiled=self.runtime.compile
        )

    def fit(self, hook: Hook | None = None) -> RepairModel:
        """Train to the end and return the model; `hook(progress, record)` is called after every step.

        Raises `UserError` for a non-finite loss, `KeyboardInterrupt` if a run in a folder was interrupted.
        """

        def keep(progress: Progress, record: StepRecord) -> None:
            self.records.append(record)
            if hook is not None:
                hook(progress, record)

        if self.run_dir is None:
            self.loop.fit(keep)
        else:
            self._fit_in_folder(self.run_dir, keep)
        return self.model

    def _objective(self) -> PretextObjective:
        objective = measure_objective(self.pretexts, self.pool, self.indices, self.seed)
        self.model.chance_losses = objective.chance_losses
        return objective

    def _fit_in_folder(self, folder: Path, keep: Callable[[Progress, StepRecord], None]) -> None:
        config = self._config()
        extended = check_folder(config, folder)
        run = Run(folder, config.stage, self.seed, console=self.console)
        run.about |= {"teacher": self.teacher} if self.teacher else {}
        run.open(config.to_yaml())
        if extended:
            run.extend()
            run.warn(extended)
        try:
            memory = resume_repair(self.loop, run, config)
            description = describe_model(config, self.model, self.pool, self.teacher)
            fit(run, self.loop, self.track, description, memory, (), hook=keep)
            write_result(run, self.loop, {}, self.pool.summary())
        finally:
            run.close()

    def _config(self) -> RunConfig:
        """The config with which the command line would do this run; images from memory have no source to name."""
        kind = STAGES.get("pretrain")
        return RunConfig(
            stage="pretrain",
            seed=self.seed,
            device=self.device,
            image_size=self.model.backbone.image_size,
            init_from=None,
            options=kind(),
            data=replace(Data(), unlabelled=[source for source in self.pool.sources if "/" in source]),
            pretexts=self.model.pretexts,
            backbone=self.model.backbone.options,
            decoder=self.model.decoder_options,
            optim=self.loop.optim,
            runtime=self.runtime,
            track=self.track,
        )


def _named(pretexts: Sequence[Pretext | str] | Mapping[str, Pretext]) -> dict[str, Pretext]:
    if isinstance(pretexts, Mapping):
        return dict(pretexts)
    found: dict[str, Pretext] = {}
    for item in pretexts:
        pretext = PRETEXTS.get(item)() if isinstance(item, str) else item
        name = pretext.registered_name
        if name in found:
            raise UserError(f"pretext {name} is given twice: give a mapping of names to pretexts.")
        found[name] = pretext
    if not found:
        raise UserError("build_model needs at least one pretext, for example vm.GridMask().")
    return found


def _all_text(images: Sequence[Any]) -> bool:
    return bool(images) and all(isinstance(one, str) for one in images)


def _items(images: Any) -> Iterable[Any]:
    """The items of a dataset or a list; raises `UserError` for anything without a length and items."""
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise UserError(
            "open_images takes a source such as images/PATH, a torch Dataset with a length, a tensor or an array; "
            f"found {type(images).__name__}."
        )
    return (images[number] for number in range(len(images)))


def _image_of(item: Any) -> Any:
    """The image of a dataset's item, as `read_image_input` takes one."""
    image = item[0] if isinstance(item, tuple | list) else item
    return image[None] if isinstance(image, Tensor) and image.ndim == 3 else image


def _pool_in_memory(pixels: np.ndarray) -> Pool:
    """A pool of (N, H, W, C) images in 8 bits or 16-bit levels, all of them for training."""
    count = len(pixels)
    return Pool(
        blocks=[pixels],
        identities=[f"image {number}" for number in range(count)],
        paths=[None] * count,
        sources=["memory"],
        member=np.ones((count, 1), bool),
        split=np.zeros(count, np.int8),
        cluster=np.arange(count),
        targets={},
        findings=[],
        details={"streamed": [], "value_ranges": {}},
    )
