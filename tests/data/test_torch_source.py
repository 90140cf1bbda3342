"""`torch/NAME` with small files in each publisher's real format, and the instructions where they are missing."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.source import open_source

RANDOM = np.random.default_rng(0)


def pictures(count: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, *shape), dtype=np.uint8)


def write_mnist(folder: Path) -> tuple[np.ndarray, str]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = pictures(5, 28, 28)
    for split, rows in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        part = images[rows]
        header = struct.pack(">iiii", 2051, len(part), 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + part.tobytes())
        labels = bytes([1, 2, 3, 4, 5][rows])
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(part)) + labels)
    return images[0][..., None], "1"


def write_svhn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, str]:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    images = pictures(4, 32, 32, 3)
    for split in ("train", "test"):
        labels = np.array([[10], [2], [3], [4]], np.uint8)  # 10 is the digit 0
        scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels})
    return images[0], "0"


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, str]:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    base = folder / "cifar-10-batches-py"
    base.mkdir()
    images = pictures(2, 32, 32, 3)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {"data": images.transpose(0, 3, 1, 2).reshape(2, -1), "labels": [3, 0]}
        (base / name).write_bytes(pickle.dumps(content))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return images[0], "cat"


def write_pets(folder: Path) -> tuple[np.ndarray, str]:
    base = folder / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations" / "trimaps").mkdir(parents=True)
    images = pictures(2, 30, 40, 3)
    for name, image in zip(("Abyssinian_1", "yorkshire_terrier_2"), images, strict=True):
        Image.fromarray(image).save(base / "images" / f"{name}.jpg", quality=95)
    lines = "Abyssinian_1 1 1 1\nyorkshire_terrier_2 2 2 1\n"
    for split in ("trainval", "test"):
        (base / "annotations" / f"{split}.txt").write_text(lines)
    return np.asarray(Image.open(base / "images" / "Abyssinian_1.jpg")), "Abyssinian"


def write_cars(folder: Path) -> tuple[np.ndarray, str]:
    base = folder / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], object)
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    kind = [("fname", object), ("class", np.int32)]
    rows = np.array([("00001.jpg", 2), ("00002.jpg", 1)], kind)
    scipy.io.savemat(base / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": rows})
    images = pictures(2, 20, 30, 3)
    for split in ("cars_train", "cars_test"):
        (base / split).mkdir()
        for number, image in enumerate(images, start=1):
            Image.fromarray(image).save(base / split / f"{number:05d}.jpg", quality=95)
    return np.asarray(Image.open(base / "cars_train" / "00001.jpg")), "Acura RL Sedan 2012"


def write_lfw(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, str]:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.LFWPeople, "_check_integrity", lambda self: True)
    base = folder / "lfw-py"
    people = {"Ann_Smith": 2, "Bob_Jones": 1}
    for name, count in people.items():
        (base / "lfw_funneled" / name).mkdir(parents=True)
        for number in range(1, count + 1):
            image = Image.fromarray(pictures(1, 25, 25, 3)[0])
            image.save(base / "lfw_funneled" / name / f"{name}_{number:04d}.jpg")
    listed = "".join(f"{name}\t{count}\n" for name, count in people.items())
    (base / "lfw-names.txt").write_text(listed)
    for split in ("Train", "Test"):
        (base / f"peopleDev{split}.txt").write_text(f"{len(people)}\n{listed}")
    first = base / "lfw_funneled" / "Ann_Smith" / "Ann_Smith_0001.jpg"
    return np.asarray(Image.open(first)), "Ann_Smith"


SETS = {
    "MNIST": (write_mnist, (3, 2)),
    "SVHN": (write_svhn, (4, 4)),
    "CIFAR10": (write_cifar10, (10, 2)),
    "OxfordIIITPet": (write_pets, (2, 2)),
    "StanfordCars": (write_cars, (2, 2)),
    "LFWPeople": (write_lfw, (3, 3)),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_in_its_real_format(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, counts = SETS[name]
    folder = tmp_path / "torchvision"
    folder.mkdir()
    expected, label = write(folder, monkeypatch) if write.__code__.co_argcount == 2 else write(folder)
    source = open_source(f"torch/{name}", tmp_path)
    items = source.items()
    assert tuple(sum(item.split == split for item in items) for split in ("train", "test")) == counts
    assert items[0].labels == {"label": label}
    assert np.array_equal(source.read(items[0]), expected)


def test_digits_are_named_by_digits(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    write_mnist(tmp_path / "torchvision")
    assert [item.labels["label"] for item in open_source("torch/MNIST", tmp_path).items()] == list("12345")


@pytest.mark.parametrize("name", SETS)
def test_without_network_the_error_lists_the_manual_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(UserError, match=rf"torch/{name} is not in '.*' and could not be downloaded .* put there"):
        open_source(f"torch/{name}", tmp_path).items()


def test_an_unknown_set_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown torchvision dataset 'MNSIT'\. Did you mean 'MNIST'"):
        open_source("torch/MNSIT", tmp_path)


def test_classes_of_the_same_name_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet has two classes that torchvision calls ('crane',)."""
    (tmp_path / "torchvision").mkdir()
    write_cifar10(tmp_path / "torchvision", monkeypatch)
    names = ["crane", "automobile", "bird", "crane", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = tmp_path / "torchvision" / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": names}))
    labels = [item.labels["label"] for item in open_source("torch/CIFAR10", tmp_path).items()]
    assert labels[:2] == ["crane (3)", "crane (0)"]


def test_sets_whose_labels_are_not_class_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    class Masks(torchvision.datasets.MNIST):
        def __init__(self, root: str, split: str) -> None:
            self.targets = [["mask.png", "colour.png"]] * 3

        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> tuple[Image.Image, Image.Image]:
            return Image.new("L", (4, 4)), Image.new("L", (4, 4))

    class Videos(Masks):
        def __init__(self, root: str, name: str, split: str) -> None:
            raise AssertionError("not constructed")

    class OtherSplits(Masks):
        def __init__(self, root: str, split: str) -> None:
            raise ValueError(f"Unknown value {split!r} for argument split")

    for kind, said in ((Masks, "labels are not one class number"), (Videos, "'name'"), (OtherSplits, "splits are not")):
        monkeypatch.setattr(torchvision.datasets, "MNIST", kind)
        with pytest.raises(UserError, match=rf"torch/MNIST is not supported: .*{said}"):
            open_source("torch/MNIST", tmp_path).items()
