"""The options of section `data` and of one task. Imports nothing heavy, so that `--help` stays fast."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.label_kinds import LABEL_KINDS, label_kind
from vision_mtl.data.range_option import read_range

POLICIES = ("none", "light", "mirror")  # named augmentation policies
POLICY_FILES = (".yaml", ".yml", ".json")  # suffixes of policy files


@dataclass(frozen=True, kw_only=True)
class Data:
    """The sources of images, their splits, and how decoded images are kept."""

    unlabelled: list[str] | None = None
    """Sources of images without labels, each written KIND/REST; without --tasks, the run has no tasks."""
    image: str | None = None
    """Image column of unlabelled sources, and of tasks that give none: a column of csv or hfds, a suffix of wds
    (jpg, depth.png). Sources without columns ignore it. By default the only one."""
    root: str = "data"
    """Folder for downloads and the decoded store."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """Resizing to image_size. stretch: the whole image, its aspect ratio may change; crop: the centre at the original
    aspect ratio; pad: the whole image at its original aspect ratio, with borders."""
    val_ratio: float = 0.1
    """Share of a source's images in the validation split, in [0, 1), if the source gives none."""
    test_ratio: float = 0.2
    """Share of a source's images in the test split, in [0, 1), if the source gives none."""
    split_seed: int = 0
    """Seed of the drawn splits. It differs from --seed, so that runs with different seeds are tested on the same
    images."""
    split_rule: Literal["proportional", "independent"] = "proportional"
    """How splits are drawn. proportional: each class in the ratios, to within one image; independent: each image by
    itself, so that shares vary by chance. Runs made before this option existed keep the independent rule."""
    validation_labels: Literal["fraction", "all"] = "fraction"
    """Validation labels that a label fraction leaves to choose by. fraction: the same share as of the training labels,
    stratified by class; all: all of them. Runs made before this option existed used all."""
    split_file: str | None = None
    """File RUN/splits.csv of an earlier run. Images that it lists keep their splits; those of others are drawn.
    tasks.NAME.split takes the same file for one source."""
    keep_near_duplicates_together: bool = False
    """Put near duplicates into the same split. Exact duplicates always are."""
    same_content: Literal["warn", "error", "drop"] = "warn"
    """Images with equal content and different labels of a task. warn: name them and keep their labels; error: stop;
    drop: remove the labels of all of them."""
    other_folders: Literal["leave_out", "unlabelled"] = "leave_out"
    """Folders beside the split folders train, val and test of a folder source. leave_out: not used, with a warning;
    unlabelled: training images without labels."""
    skip_unreadable: bool = False
    """Leave out files that cannot be decoded. By default the run stops with a list of them."""
    include_test: bool = False
    """Pretrain on test images as well. Their scores are then no longer held out."""
    value_range: Literal["full"] | list[float | str] | None = None
    """Values of deep images (more than 8 bits, floats) that become 0 and 1, for all sources whose tasks give none. Two
    numbers; two percentiles of the source's training images (1% 99%); full: the whole range of the integer type; null:
    minimum and maximum of the training images. Values outside are clipped."""
    rgb_bands: list[int] | None = None
    """Bands shown as red, green and blue in pictures of images with more than 3 bands, counted from 0. null: 0 1 2."""
    num_workers: int = 0
    """Number of decoding threads, for the store or for streaming. 0: one per core."""
    max_store_gb: float = 50.0
    """Largest decoded store of a source, in GB of 1e9 bytes."""
    stream: bool | Literal["auto"] = "auto"
    """Decoding during training instead of once into a store. true: always stream image files; false: always store, and
    stop above max_store_gb; auto: store, or stream above max_store_gb."""
    clean: bool = False
    """Delete all decoded stores below root and end (stage data only)."""

    def __post_init__(self) -> None:
        read_range("data.value_range", self.value_range)
        bands = self.rgb_bands
        if bands is not None and (len(bands) != 3 or min(bands) < 0):
            raise UserError(f"data.rgb_bands must be three bands, counted from 0: red, green, blue; found {bands}.")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One supervised task: its source, label column, kind of label, splits, augmentation and loss weight.

    Raises `UserError` for a value out of range, and for an option that does not apply to the task's kind.
    """

    source: str
    """Labelled images, written KIND/REST, for example folder/my/cars, csv/labels.csv or bundled/digits."""
    kind: str = "single_label"
    """Kind of label. single_label: one class; multi_label: any number of classes; regression: a number; dense: a mask
    with a class for each pixel. A blank cell is no label in every kind."""
    label: str | None = None
    """Label column; by default the source's only one. For kind dense it names mask files, relative to the CSV file."""
    image: str | None = None
    """Image column of the source (csv, hfds, wds), as described at data.image; the same in all tasks on a source."""
    label_from: str | None = None
    """Regular expression on the file's path, whose first group is the label."""
    separator: str = " "
    """Text between the classes of a label (kind multi_label). The label `none` means no class."""
    missing: list[str] | None = None
    """Words in the cells of a CSV file that mean no label, as a blank cell does; compared without case. null: nan, N/A,
    #N/A, <NA> and NULL, with a warning that counts them; []: none, all words are classes."""
    masks: str | None = None
    """Folder of masks with the images' names (kind dense), or a pattern such as masks/*_mask.png, where * stands for
    the name. An image without a mask has no label."""
    ignore: int | str | None = 255
    """Mask value of pixels without a class (kind dense), 0 or more, or a colour as #e0e0c0. null: every value is a
    class. The default 255 is a class if the masks hold no two other values, as in masks of 0 and 255."""
    split: str | None = None
    """Official split: a column with train, val or test; a list file or several, separated by commas; the names of two
    folders (train,test) or three (train,val,test); or the file RUN/splits.csv of an earlier run."""
    value_range: Literal["full"] | list[float | str] | None = None
    """Values of the source's deep images that become 0 and 1, as in data.value_range; null: those of data.value_range.
    Tasks on one source must agree."""
    group: str | None = None
    """Column whose equal values stay in the same split (a person, a video, a session)."""
    augment: str | dict[str, Any] = "light"
    """Augmentation. none: no change; light: small shifts, rotations, scaling, brightness and contrast; mirror: light
    and horizontal flips; or an albumentations policy, as its to_dict gives it, in YAML or in a .yaml or .json file."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the loss. none: all equal; balanced: by inverse frequency."""
    label_smoothing: float = 0.0
    """Share of a label's probability that is spread over all classes, in [0, 1)."""
    weight: float = 1.0
    """Weight of the task's loss relative to the other tasks, above 0."""

    def __post_init__(self) -> None:
        if self.kind not in LABEL_KINDS.names():
            raise unknown(f"kind of label of the task on {self.source}", self.kind, LABEL_KINDS.names())
        read_range(f"value_range of the task on {self.source}", self.value_range)
        smoothing = self.label_smoothing
        self._require("label_smoothing must lie in [0, 1)", smoothing, 0 <= smoothing < 1)
        self._require("weight must be a finite number above 0", self.weight, 0 < self.weight < math.inf)
        value = self.ignore
        known = re.fullmatch("#[0-9a-fA-F]{6}", value) is not None if isinstance(value, str) else (value or 0) >= 0
        self._require("ignore must be 0 or more, a colour as #e0e0c0, or null", value, known)
        self._require("separator must not be empty", self.separator, self.separator != "")
        self._require(
            "masks is for kind dense (add --tasks.NAME.kind dense)",
            self.masks,
            self.masks is None or label_kind(self.kind).is_dense,
        )
        self._require("label_smoothing is for kinds with classes", smoothing, smoothing == 0 or self._has_classes)
        plain = self.class_weights == "none"
        self._require("class_weights is for kinds with classes", self.class_weights, plain or self._has_classes)
        if isinstance(self.augment, str) and self.augment not in POLICIES and not self.augment.endswith(POLICY_FILES):
            raise unknown(f"augment of the task on {self.source}", self.augment, [*POLICIES, "FILE.yaml", "FILE.json"])

    @property
    def _has_classes(self) -> bool:
        return label_kind(self.kind).has_classes

    def _require(self, rule: str, found: object, holds: bool) -> None:
        if not holds:
            raise UserError(f"the task on {self.source}, of kind {self.kind}: {rule}; found {found!r}.")
