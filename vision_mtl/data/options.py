"""The options of `data` and of one task: read by the command line without importing anything heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where images come from and how they are kept."""

    unlabelled: list[str] | None = None  # sources of images without labels; given alone, there are no tasks
    root: str = "data"  # folder for downloads and the decoded store
    fit: Literal["stretch", "crop", "pad"] = "stretch"  # how an image meets image_size: stretch keeps all of it,
    # crop keeps its shape and the centre, pad keeps both and adds borders
    val_ratio: float = 0.1  # share of a source held out for choices, where it brings no split of its own
    test_ratio: float = 0.2  # share of a source held out for the final scores, likewise
    split_seed: int = 0  # splits do not follow --seed, so that runs with other seeds are judged on the same images
    keep_near_duplicates_together: bool = False  # near-identical images on one side; exact ones always are
    skip_unreadable: bool = False  # leave out files that cannot be decoded instead of stopping with their list
    include_test: bool = False  # let test images into pretraining: their scores are then no longer held out
    num_workers: int = 0  # threads that decode; 0: one a core
    max_store_gb: float = 50.0  # largest decoded store, in GB of 1e9 bytes; a larger one is refused
    clean: bool = False  # stage data only: delete every decoded store below root, then end


@dataclass(frozen=True, kw_only=True)
class Task:
    """One labelled set: a source, which of its columns is the label, and how the label is read."""

    source: str  # for example folder/my/cars, csv/labels.csv or bundled/digits
    kind: Literal["single_label"] = "single_label"  # one class an image
    label: str | None = None  # label column; default: the source's only one
    label_from: str | None = None  # regular expression on the file's path; its first group is the label
    split: str | None = None  # column with train, val or test; a file or a comma list of files; or three folders
    group: str | None = None  # column whose equal values stay on one side (a person, a video, a session)
