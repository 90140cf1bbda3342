"""One interface to every timm architecture: images in [0, 1] in, a short list of feature maps out.

`forward_intermediates(output_fmt="NCHW")` is timm's own uniform interface (all 98 architecture modules of timm 1.0.31),
so there is no code per family. A dry run on a blank image measures the shapes of the maps at the given image size.
"""
# B images, C channels, H W pixels, h w positions of a map, D feature width

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone_names import check_loaded, loading_error, quiet_hub, timm_name
from vision_mtl.models.compiling import maybe_compiled
from vision_mtl.models.options import BackboneOptions
from vision_mtl.models.visible import CommonCounts, Runs, encode_tokens, encode_visible, takes_visible_tokens
from vision_mtl.models.weights import Weights, load_given, load_packaged, packaged_file, timm_record

NUM_MAPS = 4  # maps for the decoder: the deepest of each resolution; for a plain ViT, at even steps
PIXEL_STATISTICS = (0.5, 0.25)  # mean and std of a channel where timm's pretrained_cfg has none
SIZE_STEPS = (32, 14)  # the search for an allowed size tries multiples of these, the usual strides and patch sizes


class Backbone(nn.Module):
    """A timm model without its classifier.

    `channels[i]` and `map_sizes[i]` (h, w) describe the i-th map, shallow to deep; `num_features` is D of the last map.
    The network sees images enlarged to `input_size` (H, W). `weights` is the record of the weights that it, or the run
    that it continues, started from (`models/weights.py`); None: random ones.
    Raises `UserError` for an unknown name, an unknown keyword, or an image size that the architecture does not accept
    (the message names the nearest one that works).
    """

    mean: Tensor  # (C, 1, 1)
    std: Tensor  # (C, 1, 1)

    def __init__(
        self,
        name: str = "resnet18",
        pretrained: bool | str = False,
        in_chans: int = 3,
        kwargs: Mapping[str, Any] | None = None,
        *,
        image_size: tuple[int, int],
        input_size: int = 0,
    ) -> None:
        super().__init__()
        self.options = BackboneOptions(
            name=name, pretrained=pretrained, in_chans=in_chans, input_size=input_size, kwargs=dict(kwargs or {})
        )
        self.name, self.image_size, self.in_chans = name, image_size, in_chans
        self.input_size = enlarged_size(image_size, input_size)
        self.model, loaded = create_timm_model(name, pretrained, dict(kwargs or {}), self.input_size, in_chans)
        self.weights = loaded.record if loaded else None
        self.load_warnings = loaded.warnings if loaded else []
        self.weights_lost = False  # on resume: these weights are random, because the initial ones are gone
        own = getattr(self.model, "pretrained_cfg", {})
        published_cfg = {**own, **(loaded.published if loaded else {})}
        self.weights_size = min((published_cfg.get("input_size") or (0, 0, 0))[1:])  # of images of published weights
        mean, std, published = _pixel_statistics(published_cfg, in_chans)
        self.has_statistics = published or in_chans == 1  # of grey the published average is used
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.indices: list[int] | None = None  # of the maps to return; None: all, for the dry run
        # a ViT applies its final norm to the maps, so that it is trained too; a few architectures do not support that
        self.final_norm = True
        shapes = self._dry_run()
        self.indices = choose_maps([(shape[2], shape[3]) for shape in shapes])
        self.channels = [shapes[i][1] for i in self.indices]
        self.map_sizes = [(shapes[i][2], shapes[i][3]) for i in self.indices]
        self.num_features = self.channels[-1]
        self.skips_hidden = takes_visible_tokens(self.model)
        self.common_counts: CommonCounts | None = None  # set where all processes must run the blocks equally often

    @classmethod
    def of(cls, options: BackboneOptions, image_size: tuple[int, int]) -> Backbone:
        """Return the backbone that `options` describe, for images of `image_size` (H, W)."""
        return cls(
            options.name,
            options.pretrained,
            options.in_chans,
            options.kwargs,
            image_size=image_size,
            input_size=options.input_size,
        )

    def forward(
        self, images: Tensor, hidden: Tensor | None = None, last_only: bool = False, runs: Runs | None = None
    ) -> list[Tensor]:
        """(B, C, H, W) in [0, 1] -> maps (B, D_i, h_i, w_i), shallow to deep; with `last_only` the deepest only.

        `hidden` (B, 1, h, w) bool marks tokens that are not encoded, where `skips_hidden`; the maps are 0 there. `runs`
        gives the number of visible tokens of each row where it is known, which saves a GPU synchronisation.
        """
        indices = self.indices[-1:] if last_only and self.indices else self.indices
        if hidden is None or indices is None:
            return maybe_compiled(self, _whole_maps)(self, images, indices)
        encode = maybe_compiled(self, encode_tokens)
        return encode_visible(self.model, self.prepare(images), hidden, indices, runs, self.common_counts, encode)

    def prepare(self, images: Tensor) -> Tensor:
        """The network's input: enlarged to `input_size` and normalised."""
        return self.normalise(self.enlarge(images))

    def enlarge(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *input_size), bilinear; views of another size are enlarged by the same factor."""
        if self.input_size == self.image_size:
            return images
        sides = zip(images.shape[-2:], self.input_size, self.image_size, strict=True)
        size = [round(side * new / old) for side, new, old in sides]
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(x - mean) / std for each channel, with the published statistics of the architecture."""
        return (images - self.mean) / self.std

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the standard deviation (C,) of each band, where no published ones apply."""
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(std[:, None, None])
        self.has_statistics = True

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D): the last map, averaged over positions."""
        return self(images)[-1].mean(dim=(2, 3))

    def accepts(self, size: tuple[int, int]) -> bool:
        """True if the backbone runs on images of another size (H, W); learned positions may not allow it."""
        try:
            return min(self._blank_maps(size)[-1].shape) > 0
        except Exception:  # timm's architectures reject a size with many types of error
            return False

    def _blank_maps(self, size: tuple[int, int]) -> list[Tensor]:
        """The maps of a blank image (H, W), in eval mode and without gradients."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return self(torch.zeros(1, self.in_chans, *size))
        finally:
            self.train(training)

    def _dry_run(self) -> list[torch.Size]:
        """The shapes of all maps of a blank image; also sets `final_norm`."""
        failures, maps = [], []
        for self.final_norm in (True, False):
            try:
                maps = self._blank_maps(self.image_size)
                break
            except Exception as error:  # timm's architectures reject a size with many types of error
                failures.append((str(error).splitlines() or [type(error).__name__])[0])
        if not maps or any(m.ndim != 4 or min(m.shape) == 0 for m in maps):
            raise _size_error(self.name, self.input_size, failures[-1] if failures else "a feature map came out empty")
        return [m.shape for m in maps]


def _whole_maps(backbone: Backbone, images: Tensor, indices: list[int] | None) -> list[Tensor]:
    """(B, C, H, W) in [0, 1] -> the maps (B, D, h, w) after the stages `indices`, in order; None: after all stages."""
    return backbone.model.forward_intermediates(
        backbone.prepare(images),
        indices=indices,
        output_fmt="NCHW",
        intermediates_only=True,
        norm=backbone.final_norm,
    )


def create_timm_model(
    name: str, pretrained: bool | str, kwargs: dict[str, Any], image_size: tuple[int, int], in_chans: int
) -> tuple[Any, Weights | None]:  # timm's models share methods, but no declared type
    """Create a timm model without classifier, and load its weights; None: they are random.

    Passes the image size to architectures that need it. Raises `UserError` for an unknown name or keyword, an image
    size that does not work, or weights that do not load.
    """
    packaged = packaged_file(name) if pretrained is True else None
    downloads = pretrained is True and packaged is None
    model = _new_timm_model(name, downloads, kwargs, image_size, in_chans)
    if packaged is not None:
        return model, load_packaged(name, model, packaged)
    if isinstance(pretrained, str):
        return model, load_given(name, model, pretrained)
    return model, Weights(timm_record(model, name)) if downloads else None


def _new_timm_model(
    name: str, downloads: bool, kwargs: dict[str, Any], image_size: tuple[int, int], in_chans: int
) -> Any:
    """A timm model with random weights, or with those that timm downloads."""
    known = timm_name(name)
    fixed: dict[str, Any] = {"pretrained": downloads, "num_classes": 0, "in_chans": in_chans}
    sized = {"img_size": image_size[0] if image_size[0] == image_size[1] else image_size}
    refused: Exception | None = None
    attempts = [{**fixed, **kwargs}] if "img_size" in kwargs else [{**fixed, **sized, **kwargs}, {**fixed, **kwargs}]
    for attempt in attempts:
        try:
            with quiet_hub():
                model = timm.create_model(known, **attempt)
            if downloads:
                check_loaded(name, model)
            return model
        except (OSError, KeyError, SafetensorError) as error:  # no network, no such repository, damaged files
            raise loading_error(name, error) from None
        except TypeError as error:
            refused = error
            if "img_size" not in str(error):
                break
        except (AssertionError, ValueError, RuntimeError) as error:
            refused = error
            if downloads:
                break
    if isinstance(refused, TypeError):
        raise UserError(f"backbone {name!r} does not take backbone.kwargs {kwargs}: {refused}") from refused
    if downloads:
        raise loading_error(name, refused or RuntimeError("no attempt")) from None
    raise _size_error(name, image_size, str(refused).splitlines()[0]) from refused


def choose_maps(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the maps to decode: the last of each resolution, or even steps if all have the same resolution."""
    last_of_size = {size: i for i, size in enumerate(sizes)}
    if len(last_of_size) > 1:
        return sorted(last_of_size.values())[-NUM_MAPS:]
    count = min(NUM_MAPS, len(sizes))
    return [math.ceil((i + 1) * len(sizes) / count) - 1 for i in range(count)]


def is_convolutional(module: nn.Module) -> bool:
    """True if most parameters are in convolutions, where channels_last memory is faster."""
    total = sum(p.numel() for p in module.parameters())
    kernels = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    return 2 * kernels > total


def allowed_size(name: str, near: tuple[int, int]) -> tuple[int, int] | None:
    """The square size nearest to `near` on which the architecture runs, or None; tries nearby sizes and its own."""
    published = timm.get_pretrained_cfg(name.split(".")[0])
    own = published.input_size[-1] if published is not None else 224
    multiples = {side for step in SIZE_STEPS for side in range(step, 2 * own + 1, step)}
    sides = sorted(multiples, key=lambda side: abs(side - max(near)))
    for side in [*sides[:8], own]:
        try:
            Backbone(name, image_size=(side, side))
        except UserError:
            continue
        return side, side
    return None


def _size_error(name: str, image_size: tuple[int, int], reason: str) -> UserError:
    """The error for an unsupported image size; it names the nearest one that works, except within that search."""
    searching = any(frame.function == "allowed_size" for frame in inspect.stack(0))
    works = None if searching else allowed_size(name, image_size)
    advice = f" Nearest size that works: --image_size {works[0]}" if works else ""
    if works and works[0] > min(image_size):
        advice += f", or --backbone.input_size {works[0]}, which enlarges the images for the network"
    advice += "." if works else ""
    height, width = image_size
    return UserError(f"backbone {name!r} cannot take image_size {height},{width}: {reason}.{advice}")


def enlarged_size(image_size: tuple[int, int], input_size: int) -> tuple[int, int]:
    """The size (H, W) at which the network sees images: the shorter side has `input_size` pixels, 0 for its own.

    Raises `UserError` if that is smaller.
    """
    shorter = min(image_size)
    if input_size and input_size < shorter:
        raise UserError(
            f"backbone.input_size must be 0 or at least the shorter side of the images, {shorter}; found {input_size}. "
            "To see fewer pixels, lower --image_size."
        )
    height, width = (round(side * (input_size or shorter) / shorter) for side in image_size)
    return height, width


def _pixel_statistics(published: Mapping[str, Any], in_chans: int) -> tuple[list[float], list[float], bool]:
    """(mean, std) of each channel from timm's entries, and whether they are published for these channels.

    Other channels get their average.
    """
    values, matches = [], True
    for key, fallback in zip(("mean", "std"), PIXEL_STATISTICS, strict=True):
        given = [float(v) for v in published.get(key) or (fallback,)]
        average = sum(given) / len(given)
        values.append(given if len(given) == in_chans else [average] * in_chans)
        matches &= len(given) == in_chans
    return values[0], values[1], matches
