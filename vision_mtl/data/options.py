"""The options of `data` and of one task: read by the command line without importing anything heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.label_kinds import LABEL_KINDS, label_kind

POLICIES = ("none", "light", "mirror")  # augmentation by name
POLICY_FILES = (".yaml", ".yml", ".json")  # or in a file of these


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where images come from and how they are kept."""

    unlabelled: list[str] | None = None
    """Sources of images without labels; given alone, there are no tasks."""
    root: str = "data"
    """Folder for downloads and the decoded store."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How an image meets image_size: stretch keeps all of it, crop keeps its shape and the centre, pad keeps both and
    adds borders."""
    val_ratio: float = 0.1
    """Share of a source held out for choices, where it brings no split of its own."""
    test_ratio: float = 0.2
    """Share of a source held out for the final scores, likewise."""
    split_seed: int = 0
    """Splits do not follow --seed, so that runs with other seeds are judged on the same images."""
    keep_near_duplicates_together: bool = False
    """Near-identical images on one side; exact ones always are."""
    skip_unreadable: bool = False
    """Leave out files that cannot be decoded instead of stopping with their list."""
    include_test: bool = False
    """Let test images into pretraining: their scores are then no longer held out."""
    num_workers: int = 0
    """Threads that decode, once for the store or ahead of each step; 0: one a core."""
    max_store_gb: float = 50.0
    """Largest decoded store of a source, in GB of 1e9 bytes."""
    stream: bool | Literal["auto"] = "auto"
    """True: image files are decoded while they are trained on, and not kept; false: stored, or refused above
    max_store_gb; auto: stored, or streamed above max_store_gb."""
    clean: bool = False
    """Stage data only: delete every decoded store below root, then end."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One labelled set: a source, which of its columns is the label, how it is read, and how it is trained on.

    Raises `UserError` for a value out of range, and for an option that the task's kind has no use for.
    """

    source: str
    """For example folder/my/cars, csv/labels.csv or bundled/digits."""
    kind: str = "single_label"
    """What a label is: single_label, one class; multi_label, any number of classes; regression, a number; dense, a mask
    with a class for each pixel. A blank label is always no label."""
    label: str | None = None
    """Label column; default: the source's only one. Of a dense task it names mask files, relative to the CSV file."""
    label_from: str | None = None
    """Regular expression on the file's path; its first group is the label."""
    separator: str = " "
    """Multi_label: what stands between the classes of a label; the label `none` has no class."""
    masks: str | None = None
    """Dense: folder of masks named as the images are; an image without one has no label."""
    ignore: int | None = 255
    """Dense: the mask's value that means no class; null: every value is a class."""
    split: str | None = None
    """Column with train, val or test; a file or a comma list of files; or three folders."""
    group: str | None = None
    """Column whose equal values stay on one side (a person, a video, a session)."""
    augment: str | dict[str, Any] = "light"
    """None; light: small shifts, turns, zooms, brightness; mirror: flips too; or an albumentations policy as its
    to_dict gives it, in YAML or in a .yaml or .json file."""
    class_weights: Literal["none", "balanced"] = "none"
    """Balanced: rare classes weigh more, by inverse frequency."""
    label_smoothing: float = 0.0
    """Share of a label's mass that is spread over all classes, in [0, 1)."""
    weight: float = 1.0
    """Of the task's loss among the others, above 0."""

    def __post_init__(self) -> None:
        if self.kind not in LABEL_KINDS.names():
            raise unknown(f"kind of label of the task on {self.source}", self.kind, LABEL_KINDS.names())
        smoothing = self.label_smoothing
        self._require("label_smoothing must lie in [0, 1)", smoothing, 0 <= smoothing < 1)
        self._require("weight must be a finite number above 0", self.weight, 0 < self.weight < math.inf)
        self._require("ignore must be 0 or more, or null", self.ignore, self.ignore is None or self.ignore >= 0)
        self._require("separator must not be empty", self.separator, self.separator != "")
        self._require("masks is for kind dense", self.masks, self.masks is None or label_kind(self.kind).is_dense)
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
