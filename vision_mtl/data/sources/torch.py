"""`torch/NAME`: a torchvision dataset (MNIST, SVHN, CIFAR10, OxfordIIITPet, StanfordCars, LFWPeople, ...).

Downloaded to `data.root`/torchvision. Without a network, or if the publisher has removed the files, an error lists the
files and where to put them. Official train and test splits are kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.source import SOURCES, Item, Split

# torchvision's names for the splits; the first one that a dataset accepts is used
TRAIN_WORDS, TEST_WORDS, VAL_WORDS = ("train", "trainval"), ("test",), ("val", "valid")
MANUAL = {
    "MNIST": "MNIST/raw/ with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz, unpacked, from https://ossci-datasets.s3.amazonaws.com/mnist/",
    "SVHN": "train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers/",
    "CIFAR10": "cifar-10-batches-py/, unpacked from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "CIFAR100": "cifar-100-python/, unpacked from https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "OxfordIIITPet": "oxford-iiit-pet/ with images/ and annotations/, unpacked from images.tar.gz and "
    "annotations.tar.gz at https://www.robots.ox.ac.uk/~vgg/data/pets/",
    "StanfordCars": "stanford_cars/ with cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat; the "
    "publisher's links are dead, see https://github.com/pytorch/vision/issues/7545 for mirrors",
    "LFWPeople": "lfw-py/ with lfw_funneled/, lfw-names.txt, peopleDevTrain.txt and peopleDevTest.txt from "
    "http://vis-www.cs.umass.edu/lfw/ or a mirror",
}


@SOURCES.register("torch")
class Torch:
    """All images of a torchvision classification dataset, with label column `label`.

    Raises `UserError` for an unknown dataset.
    """

    def __init__(self, rest: str, root: Path) -> None:
        import torchvision  # late: it takes a second

        known = [n for n in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, n))]
        if rest not in known:
            raise unknown("torchvision dataset", rest, known)
        self.rest, self.folder = rest, root / "torchvision"
        self.kind = getattr(torchvision.datasets, rest)
        self.version = f"1 torchvision {torchvision.__version__}"

    def items(self) -> list[Item]:
        found = []
        for split, dataset in self._splits.items():
            names = _class_names(dataset)
            for number, target in enumerate(self._targets(dataset)):
                found.append(Item(f"{split}/{number:06d}", labels={"label": _label(target, names)}, split=split))
        if not found:
            raise UserError(f"torch/{self.rest} is not supported: its splits are not called train, val or test.")
        return found

    def read(self, item: Item) -> np.ndarray:
        split, number = item.identity.split("/")
        try:
            image = self._splits[cast(Split, split)][int(number)][0]  # as items() wrote it
        except (OSError, ValueError) as error:
            raise UnreadableImage(item.identity, str(error)) from error
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return pixels[..., None] if pixels.ndim == 2 else pixels

    @cached_property
    def _splits(self) -> dict[Split, Any]:
        """The dataset's splits, downloaded if they are missing."""
        parameters = inspect.signature(self.kind.__init__).parameters
        if "train" in parameters:
            attempts: dict[Split, list[dict[str, Any]]] = {"train": [{"train": True}], "test": [{"train": False}]}
        elif "split" in parameters:
            words: dict[Split, Sequence[str]] = {"train": TRAIN_WORDS, "val": VAL_WORDS, "test": TEST_WORDS}
            attempts = {split: [{"split": word} for word in tried] for split, tried in words.items()}
        else:
            raise UserError(f"torch/{self.rest} is not supported: its constructor has neither `train` nor `split`.")
        opened = {split: self._open(options, "download" in parameters) for split, options in attempts.items()}
        return {split: dataset for split, dataset in opened.items() if dataset is not None}

    def _targets(self, dataset: Any) -> list[int]:
        """Return all labels. Raises `UserError` if they are not class numbers."""
        try:
            return _targets(dataset)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise UserError(
                f"torch/{self.rest} is not supported: its labels are not one class number for each image ({error})."
            ) from error

    def _open(self, attempts: list[dict[str, Any]], downloads: bool) -> Any | None:
        """Open the dataset with the first of `attempts` that it accepts; None if it has no such split."""
        for arguments in attempts:
            try:
                return self.kind(str(self.folder), **arguments)
            except ValueError as error:
                if "Unknown value" in str(error) or "split" in str(error):
                    continue  # a word that this dataset does not use
                raise self._missing(error) from error
            except TypeError as error:  # an argument without a default
                raise UserError(f"torch/{self.rest} is not supported: {error}.") from error
            except (RuntimeError, OSError) as error:
                return self._download(arguments, downloads, error)
        return None

    def _download(self, arguments: dict[str, Any], downloads: bool, absent: Exception) -> Any:
        if not downloads:
            raise self._missing(absent) from absent
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return self.kind(str(self.folder), download=True, **arguments)
        except (RuntimeError, OSError, ValueError) as error:  # no network, a dead link, a wrong checksum
            raise self._missing(error) from error

    def _missing(self, error: Exception) -> UserError:
        steps = MANUAL.get(self.rest, "the files that torchvision's documentation of the dataset lists")
        reason = " ".join(str(error).split())[:300]
        return UserError(
            f"torch/{self.rest} is not in {str(self.folder)!r} and could not be downloaded ({reason}). "
            f"By hand: put there {steps}."
        )


def _targets(dataset: Any) -> list[int]:
    """Return all labels, from an attribute of the dataset; decoding all images is the last resort."""
    for name in ("targets", "_labels", "labels", "y"):
        values = getattr(dataset, name, None)
        if values is not None and len(values) == len(dataset) and np.ndim(values) == 1:  # QMNIST keeps eight columns
            return [int(v) for v in values]
    samples = getattr(dataset, "_samples", None)
    if samples is not None and len(samples) == len(dataset) and isinstance(samples[0], tuple):
        return [int(target) for _, target in samples]
    return [int(dataset[i][1]) for i in range(len(dataset))]


def _class_names(dataset: Any) -> list[str] | None:
    """Return the class names in order, from an attribute of the dataset, or None.

    A name that several classes have is followed by the class's number (ImageNet has two classes called crane).
    """
    numbers = getattr(dataset, "class_to_idx", None)
    if isinstance(classes := getattr(dataset, "classes", None), list | tuple):
        names = [str(name) for name in classes]
    elif isinstance(numbers, dict):
        names = sorted(numbers, key=numbers.__getitem__)
    else:
        return None
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)]


def _label(target: int, names: list[str] | None) -> str:
    """Return the class's name, or its number if the name begins with it (`3 - three`)."""
    if names is None or not 0 <= target < len(names):
        return str(target)
    name = names[target]
    return str(target) if str(name).startswith(f"{target} - ") else str(name)
